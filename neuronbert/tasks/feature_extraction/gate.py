"""What compiler/gate.py measures of embeddings: cosines with the reference's, and how similarities of pairs rank."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.checkpoint.families import Config
from neuronbert.errors import InputError
from neuronbert.tasks.agreement import for_json, largest_difference
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF, NOT_FINITE, Document, GateLimits, GateQuestions, PathLike
from neuronbert.tasks.feature_extraction.data import ScoredPair, load_pairs
from neuronbert.tasks.feature_extraction.inputs import Example
from neuronbert.tasks.feature_extraction.modules import modules_of
from neuronbert.tasks.feature_extraction.results import SENTENCE, TOKENS
from neuronbert.tasks.feature_extraction.similarity import pair_similarities
from neuronbert.tasks.samples import calibration_path, gate_path, shipped_texts
from neuronbert.tasks.scoring import spearman

MIN_PAIRS = 500
# The ratio of Spearman's correlations; of pairs without scores, the correlation of the similarities with FP32's.
MIN_RANK_RATIO = 0.995
MIN_MEAN_COSINE = 0.99


_AGREEMENT = ("max_abs_diff", "mean_cosine", "rank_agreement", "unscored_rank_agreement", "n")


@dataclass(frozen=True)
class Agreement:
    """How a variant compares with the FP32 reference over ``n`` pairs of texts.

    mean_cosine: of its embeddings with the reference's, over all texts, also those of no pair. rank_agreement:
    Spearman's correlation of the pairs' similarities (the checkpoint's own measure) with the reference's; None of fewer
    than two pairs, which have no order. unscored_rank_agreement: that of the pairs without a score. spearman: of the
    ``scored`` pairs, that of the similarities with the scores; None where fewer than two have one, or all have the
    same.
    """

    n: int
    scored: int
    max_abs_diff: float
    mean_cosine: float
    rank_agreement: Optional[float]
    unscored_rank_agreement: Optional[float]
    spearman: Optional[float]
    reference_spearman: Optional[float]

    @property
    def known(self) -> int:
        """None: embeddings are also compared with those that were stored before, as FP32 makes them."""
        return 0

    def as_dict(self) -> Document:
        """The figures for JSON, which has no NaN or Inf: null stands for them."""
        return for_json(asdict(self))

    def entry(self) -> Document:
        """The manifest's ``agreement`` and ``accuracy``."""
        figures = self.as_dict()
        accuracy = {key: figures[key] for key in ("spearman", "reference_spearman", "scored")}
        return {
            "agreement": {key: figures[key] for key in _AGREEMENT},
            "accuracy": accuracy if self.spearman is not None else None,
        }


class Judged(NamedTuple):
    """The gate's texts as one session embeds them."""

    outputs: Sequence[Outputs]
    similarities: np.ndarray  # of the pairs, in order; NaN where an embedding is not finite


class EmbeddingGate:
    """The gate of feature extraction (tasks.base.TaskGate); a row for each text, a question for each pair."""

    LIMITS = GateLimits(MIN_RANK_RATIO, MIN_MEAN_COSINE)

    def __init__(self, similarity: str):
        self._similarity = similarity

    @classmethod
    def of(cls, config: Config) -> "EmbeddingGate":
        """The gate for a checkpoint with this config.json."""
        return cls(modules_of(config).similarity)

    def questions(
        self, gate_data: Optional[PathLike], calibration_data: Optional[PathLike], skipped: bool
    ) -> GateQuestions:
        """The pairs of the user's files; the gate's are filled up to 500 with shipped ones, without scores.

        A text alone counts for the cosine, and is none of the 500.
        """
        calibration = load_pairs(calibration_data) if calibration_data else _shipped(calibration_path())
        seen = set(_texts(calibration))
        own = _unseen(load_pairs(gate_data), seen) if gate_data else []
        shipped = _shipped(gate_path())
        more = _unseen(shipped, seen)
        filled = more[: max(0, MIN_PAIRS - len(_paired(own)))] if gate_data else more
        count = len(_paired(own)) + len(filled)
        if not skipped and count < MIN_PAIRS:
            raise InputError(
                f"{count} pairs are left for the gate, which needs {MIN_PAIRS}: the others have texts "
                "of the calibration data",
                hint="--calibration-data with other texts, or --gate-data with more",
            )
        files = ([Path(gate_data)] if gate_data else []) + ([gate_path()] if filled else [])
        calibration_file = Path(calibration_data or calibration_path())
        return GateQuestions(calibration, own + filled, shipped, calibration_file, [] if skipped else files)

    def inputs(self, labelled: Sequence[ScoredPair]) -> List[str]:
        """The texts of the pairs, each once."""
        return _texts(labelled)

    def judge(self, labelled: Sequence[ScoredPair], examples: Sequence[Example], outputs: Sequence[Outputs]) -> Judged:
        """The similarities of the pairs: every text is one row."""
        vectors = np.stack([_vector(row) for row in outputs])
        place = {text: number for number, text in enumerate(_texts(labelled))}
        pairs = [(place[pair.text], place[pair.text_pair]) for pair in labelled if pair.text_pair is not None]
        left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        with np.errstate(invalid="ignore"):
            return Judged(outputs, pair_similarities(self._similarity, vectors[left], vectors[right]))

    def compare(self, labelled: Sequence[ScoredPair], judged: Judged, reference: Judged) -> Agreement:
        """Embeddings and similarities against the reference's, and similarities against the scores."""
        paired = _paired(labelled)
        scored = [number for number, pair in enumerate(paired) if pair.score is not None]
        unscored = [number for number, pair in enumerate(paired) if pair.score is None]
        scores = [paired[number].score or 0.0 for number in scored]
        pairs = list(zip(judged.outputs, reference.outputs))
        finite = all(map(all_finite, judged.outputs))
        return Agreement(
            n=len(paired),
            scored=len(scored),
            max_abs_diff=largest_difference(judged.outputs, reference.outputs),
            mean_cosine=float(np.mean([_cosine(a, b) for a, b in pairs])) if finite else float("nan"),
            rank_agreement=_rank_agreement(judged.similarities, reference.similarities),
            unscored_rank_agreement=_rank_agreement(judged.similarities[unscored], reference.similarities[unscored]),
            spearman=_with_scores(judged.similarities[scored], scores),
            reference_spearman=_with_scores(reference.similarities[scored], scores),
        )

    def refusals(self, precision: str, agreement: Agreement, limits: GateLimits) -> List[str]:
        """FP32 must give the reference's numbers; a reduced precision its directions, and its order of pairs."""
        if not np.isfinite(agreement.max_abs_diff):
            return [NOT_FINITE.replace("logits hold", "embeddings hold")]
        return _fp32_refusals(agreement) if precision == "fp32" else _reduced_refusals(agreement, limits)


def _fp32_refusals(agreement: Agreement) -> List[str]:
    if agreement.max_abs_diff <= FP32_MAX_ABS_DIFF:
        return []
    return [
        f"its embeddings differ from the FP32 reference's by {agreement.max_abs_diff:.2g}, "
        f"more than {FP32_MAX_ABS_DIFF:g}"
    ]


def _reduced_refusals(agreement: Agreement, limits: GateLimits) -> List[str]:
    reasons = _disorder(agreement, limits.min_f1_ratio)
    if agreement.mean_cosine < limits.min_answer_f1:
        reasons.append(
            f"the mean cosine of its embeddings with the FP32 reference's is {agreement.mean_cosine:.4f}, "
            f"less than {limits.min_answer_f1:.4f}"
        )
    return reasons


def _disorder(agreement: Agreement, least: float) -> List[str]:
    """Why the order of the pairs is not kept: that of the scored ones by the scores, of all others by the reference.

    Scores decide by the ratio of both Spearmans, where there are two that differ; the pairs without one, two at least,
    by their rank agreement. Without such scores, the rank agreement of all pairs decides.
    """
    ours, theirs = agreement.spearman, agreement.reference_spearman
    if ours is None or theirs is None:
        return _unlike_ranks("", agreement.rank_agreement, least)
    return [
        *_lost_correlation(ours, theirs, agreement.scored, least),
        *_unlike_ranks(" of pairs without a score", agreement.unscored_rank_agreement, least),
    ]


def _unlike_ranks(which: str, ranks: Optional[float], least: float) -> List[str]:
    if ranks is None or ranks >= least:
        return []
    return [
        f"the similarities of its embeddings{which} rank {ranks:.4f} as the FP32 reference's (Spearman), "
        f"less than {least:.4f}"
    ]


def _lost_correlation(ours: float, theirs: float, scored: int, least: float) -> List[str]:
    if not theirs > 0:
        return [
            f"the FP32 reference's own Spearman on the {scored} scored pairs is {100 * theirs:.2f}, "
            "so the gate means nothing"
        ]
    if ours / theirs >= least:
        return []
    return [
        f"its Spearman is {100 * ours:.2f}, {ours / theirs:.2%} of the reference's {100 * theirs:.2f} "
        f"and less than {least:.2%}"
    ]


def _vector(row: Outputs) -> np.ndarray:
    """A text's embedding; of tokens' embeddings, their mean."""
    vector: np.ndarray = row[SENTENCE] if SENTENCE in row else row[TOKENS].mean(axis=0)
    return vector


def _cosine(ours: Outputs, theirs: Outputs) -> float:
    """The cosine of two outputs for a row, all of their numbers taken together."""
    a, b = (np.concatenate([array.ravel() for array in each.values()]).astype(np.float64) for each in (ours, theirs))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float((a == b).all())


def _rank_agreement(ours: np.ndarray, theirs: np.ndarray) -> Optional[float]:
    if len(ours) < 2:
        return None
    if np.isnan(ours).any():
        return 0.0
    # Similarities that never differ have no order to agree on.
    correlation = spearman(ours, theirs)
    return float(np.array_equal(ours, theirs)) if np.isnan(correlation) else correlation


def _with_scores(similarities: np.ndarray, scores: Sequence[float]) -> Optional[float]:
    if len(set(scores)) < 2:
        return None
    correlation = spearman(similarities, scores)
    return 0.0 if np.isnan(correlation) else correlation


def _texts(pairs: Sequence[ScoredPair]) -> List[str]:
    return list(dict.fromkeys(text for pair in pairs for text in pair[:2] if text is not None))


def _paired(labelled: Sequence[ScoredPair]) -> List[ScoredPair]:
    return [pair for pair in labelled if pair.text_pair is not None]


def _unseen(pairs: Sequence[ScoredPair], seen: Set[str]) -> List[ScoredPair]:
    return [pair for pair in pairs if pair.text not in seen and pair.text_pair not in seen]


def _shipped(path: Path) -> List[ScoredPair]:
    """Shipped questions, each with its paragraph and with one that it is not about: alike, and not."""
    asked = shipped_texts(path)
    pairs: Dict[Tuple[str, str], ScoredPair] = {}
    for own, other in zip(asked, asked[2:] + asked[:2]):
        for paragraph in (own.paragraph, other.paragraph):
            pairs[own.question, paragraph] = ScoredPair(own.question, paragraph)
    return list(pairs.values())
