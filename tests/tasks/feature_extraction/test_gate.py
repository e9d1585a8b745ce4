"""What the gate measures of embeddings, and what it refuses."""

import json
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest

from neuronbert.errors import ArtifactError, InputError
from neuronbert.tasks.base import GateLimits
from neuronbert.tasks.feature_extraction.data import ScoredPair
from neuronbert.tasks.feature_extraction.figures import agreement_text, columns
from neuronbert.tasks.feature_extraction.gate import MIN_PAIRS, Agreement, EmbeddingGate
from neuronbert.tasks.samples import calibration_path, gate_path, shipped_texts

GATE = EmbeddingGate.of({})
PAIRS = [ScoredPair(f"text {number}", f"other {number}", float(number)) for number in range(20)]
GOOD = Agreement(20, 20, 0.01, 0.999, 0.999, None, 0.8, 0.801)


def outputs_of(count: int, noise: float = 0.0, key: str = "sentence_embedding") -> List[Any]:
    random = np.random.default_rng(0)
    clean = random.normal(size=(count, 8)).astype(np.float32)
    noisy = clean + noise * np.random.default_rng(1).normal(size=clean.shape).astype(np.float32)
    rows = noisy if key == "sentence_embedding" else np.stack([noisy, noisy[::-1]], axis=1)
    return [{key: row} for row in rows]


def agreement(noise: float, pairs: Any = PAIRS, key: str = "sentence_embedding") -> Agreement:
    texts = GATE.inputs(pairs)
    reference = GATE.judge(pairs, [], outputs_of(len(texts), key=key))
    return GATE.compare(pairs, GATE.judge(pairs, [], outputs_of(len(texts), noise, key)), reference)


def changed(**fields: Any) -> Agreement:
    return Agreement(**{**vars(GOOD), **fields})


def refusals(precision: str, measured: Agreement, limits: GateLimits = EmbeddingGate.LIMITS) -> List[str]:
    return GATE.refusals(precision, measured, limits)


# ---- what is measured


@pytest.mark.parametrize("key", ["sentence_embedding", "token_embeddings"])
def test_a_variant_that_is_the_reference_agrees(key: str) -> None:
    found = agreement(0.0, key=key)
    assert (found.max_abs_diff, found.n, found.scored) == (0.0, 20, 20)
    assert found.rank_agreement == pytest.approx(1.0, abs=1e-12)  # numpy 1.22 rounds it
    assert found.mean_cosine == pytest.approx(1.0) and found.spearman == found.reference_spearman is not None


@pytest.mark.parametrize("key", ["sentence_embedding", "token_embeddings"])
def test_the_more_noise_the_less_it_agrees(key: str) -> None:
    little, much = agreement(0.01, key=key), agreement(1.0, key=key)
    assert 1 > little.mean_cosine > much.mean_cosine and little.rank_agreement > much.rank_agreement
    assert little.max_abs_diff < much.max_abs_diff


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    judged = GATE.judge(PAIRS, [], outputs_of(40))
    expected = stats.spearmanr(judged.similarities, [pair.score for pair in PAIRS]).correlation
    assert agreement(0.5).reference_spearman == pytest.approx(expected)


def test_a_text_of_several_pairs_is_embedded_once() -> None:
    pairs = [ScoredPair("a", "b"), ScoredPair("b", "c"), ScoredPair("a", "a"), ScoredPair("d")]
    assert GATE.inputs(pairs) == ["a", "b", "c", "d"]
    judged = GATE.judge(pairs, [], outputs_of(4))
    assert len(judged.similarities) == 3 and judged.similarities[2] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "pairs",
    [
        [pair._replace(score=None) for pair in PAIRS],
        [pair._replace(score=3.0) for pair in PAIRS],
        [pair._replace(score=None) for pair in PAIRS[1:]] + PAIRS[:1],
    ],
)
def test_without_scores_that_differ_nothing_is_said_of_them(pairs: Any) -> None:
    found = agreement(0.1, pairs)
    assert found.spearman is found.reference_spearman is None and found.entry()["accuracy"] is None
    assert 0 < found.rank_agreement < 1


def test_nan_in_one_embedding_is_nan_in_the_figures_and_null_in_json() -> None:
    broken = outputs_of(40)
    broken[3]["sentence_embedding"] = np.full(8, np.nan, np.float32)
    found = GATE.compare(PAIRS, GATE.judge(PAIRS, [], broken), GATE.judge(PAIRS, [], outputs_of(40)))
    assert refusals("int8", found) == refusals("fp32", found) == ["its embeddings hold NaN or Inf"]
    assert found.as_dict()["mean_cosine"] is None and json.dumps(found.as_dict(), allow_nan=False)


# ---- what is refused


def test_good_variants_pass() -> None:
    assert refusals("int8", GOOD) == [] and refusals("fp32", changed(max_abs_diff=1e-4)) == []


def test_fp32_must_give_the_references_numbers() -> None:
    assert "differ from the FP32 reference's by 0.01" in refusals("fp32", GOOD)[0]


def test_reduced_precision_must_keep_directions_and_the_order_of_scored_pairs() -> None:
    assert "the mean cosine of its embeddings" in refusals("int8", changed(mean_cosine=0.98))[0]
    assert "its Spearman is 79.00, 98.63% of the reference's 80.10" in refusals("int8", changed(spearman=0.79))[0]
    assert refusals("int8", changed(rank_agreement=0.5)) == []  # the scores decide, where every pair has one
    assert "means nothing" in refusals("int8", changed(reference_spearman=-0.1))[0]


def test_a_few_scores_do_not_hide_that_the_other_pairs_lost_their_order() -> None:
    pairs = [pair._replace(score=None) if number > 2 else pair for number, pair in enumerate(PAIRS)]
    random, texts = np.random.default_rng(2), GATE.inputs(pairs)
    clean = random.normal(size=(len(texts), 8)).astype(np.float32)
    spoilt = clean.copy()
    spoilt[6:] += random.normal(size=spoilt[6:].shape).astype(np.float32)  # all but the texts of scored pairs
    judged = [GATE.judge(pairs, [], [{"sentence_embedding": row} for row in rows]) for rows in (spoilt, clean)]
    found = GATE.compare(pairs, *judged)
    assert found.scored == 3 and found.spearman == found.reference_spearman is not None
    (reason,) = refusals(
        "int8", Agreement(**{**vars(found), "mean_cosine": 1.0, "spearman": 1, "reference_spearman": 1})
    )
    assert "of pairs without a score rank" in reason and f"{found.unscored_rank_agreement:.4f}" in reason
    assert refusals("int8", changed(unscored_rank_agreement=0.999)) == []
    assert len(refusals("int8", changed(unscored_rank_agreement=0.9, spearman=0.5))) == 2


def test_texts_alone_have_no_order_and_count_for_the_cosine() -> None:
    found = agreement(0.1, [ScoredPair(pair.text) for pair in PAIRS])
    assert (found.n, found.rank_agreement, found.unscored_rank_agreement) == (0, None, None)
    assert 0.9 < found.mean_cosine < 1
    assert "ranks not measured" in agreement_text(found.as_dict())
    assert columns({"name": "x", **found.entry()})["Spearman (FP32)"] == "not measured"


def test_without_scores_the_order_must_be_the_references() -> None:
    unscored = {"spearman": None, "reference_spearman": None}
    assert refusals("int8", changed(**unscored)) == []
    assert "rank 0.9940 as the FP32 reference's" in refusals("int8", changed(rank_agreement=0.994, **unscored))[0]


def test_the_limits_are_the_users() -> None:
    loose = GateLimits(min_f1_ratio=0.5, min_answer_f1=0.5)
    assert refusals("int8", changed(mean_cosine=0.6, spearman=0.41), loose) == []
    assert (EmbeddingGate.LIMITS.min_f1_ratio, EmbeddingGate.LIMITS.min_answer_f1) == (0.995, 0.99)


# ---- the questions


def test_the_shipped_pairs_are_of_both_kinds() -> None:
    questions = GATE.questions(None, None, False)
    own = {tuple(pair) for pair in shipped_texts(gate_path())}
    alike = sum((pair.text, pair.text_pair) in own for pair in questions.asked)
    assert MIN_PAIRS <= alike < len(questions.asked) and questions.asked_files == [gate_path()]
    assert not set(GATE.inputs(questions.asked)) & set(GATE.inputs(questions.calibration))
    assert questions.calibration_file == calibration_path()


def test_own_pairs_are_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    questions = GATE.questions(path, None, False)
    assert questions.asked[:20] == PAIRS and len(questions.asked) == MIN_PAIRS
    assert questions.asked_files == [path, gate_path()]


def test_own_texts_are_asked_beside_500_pairs(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(600)))
    asked = GATE.questions(path, None, False).asked
    assert asked[:600] == [ScoredPair(f"text {number}") for number in range(600)]
    assert sum(pair.text_pair is not None for pair in asked) == MIN_PAIRS == len(asked) - 600


def test_what_calibration_has_seen_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = {text for pair in shipped_texts(gate_path()) for text in pair}
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with pytest.raises(InputError, match="0 pairs are left for the gate, which needs 500"):
        GATE.questions(None, path, False)
    assert GATE.questions(None, path, True).asked_files == []


# ---- figures as text


def test_figures_as_text() -> None:
    text = agreement_text(GOOD.as_dict())
    assert (
        text == "Spearman 80.00 of 80.10 in FP32, cosine with FP32 0.9990, ranks 0.9990, numbers within 0.01 (20 pairs)"
    )
    assert "NaN or Inf" in agreement_text(changed(max_abs_diff=float("nan")).as_dict())


def test_columns_of_inspect() -> None:
    variant = {"name": "x", **GOOD.entry()}
    assert columns(variant) == {"Spearman (FP32)": "80.00 (80.10)", "cosine": "0.9990 of 20"}
    assert set(columns({"name": "x", "agreement": None, "accuracy": None}).values()) == {"not measured"}
    with pytest.raises(ArtifactError, match="variant x"):
        columns({**variant, "agreement": {"mean_cosine": "high"}})
