"""Sentence embeddings for compare_peers (base.PeerTask): contenders in encoders.py, their files in encoder_folders.py.

The encoder is one of the caller's (--model), a folder of sentence-transformers' or a bare checkpoint, and BERT-base
with random weights; the mean of the tokens, made a length of 1, is its embedding of a text.
"""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from neuronbert_tools.peers import encoder_folders, libraries, texts
from neuronbert_tools.peers.base import Answer, Figure, Gold, Input, Model
from neuronbert_tools.peers.encoders import BASELINE, CONTENDERS, normalised

__all__ = ["CONTENDERS"]

NAME = "feature-extraction"
UNIT = "text"
DATA: Optional[Path] = None
COUNT = 1000
PARTS: Tuple[str, ...] = ("speed",)
MODELS: Mapping[str, Model] = {
    "model": Model("the encoder of --model; compiled through the gate"),
    "bert-base": Model("random weights: our gate means nothing on them and was skipped", is_trained=False),
}
MAIN_MODEL = "model"
# Of a contender's embeddings with the BASELINE's, on average.
FIGURES: Tuple[Figure, ...] = (Figure("cosine", "cosine with FP32", decimals=4),)
# Four times sentence-transformers as it is without a keyword, and 1.2 times the fastest of all.
_LEAST = {f"{BASELINE} batch-32": 4.0, "best peer": 1.2}
SPEED_TARGETS: Mapping[str, Mapping[str, float]] = {"model": _LEAST, "bert-base": _LEAST}
MOST_LOST = 0.01
HEAD_SIZES = 0

DECIMALS = 6  # of the numbers that are compared


def refuse_model(model: Path) -> None:
    encoder_folders.refuse_other_encoders(model)


def read(data: Path, count: int) -> List[Input]:
    return texts.spaced(texts.read_texts(data), count)


def calibration(data: Optional[Path]) -> List[Input]:
    return texts.calibration_texts(data)


def start_commands(pythons: Mapping[str, Path], model: Path, artifact: Path) -> Dict[str, List[str]]:
    return {}


def make_model(name: str, folder: Path, source: Path, seed: int) -> None:
    """The checkpoint, and the files that make a sentence encoder of it where it has none."""
    if name != MAIN_MODEL:
        libraries.make_random_bert(folder, source, "Model", seed)
    else:
        encoder_folders.copy_small_files(source, folder)
        libraries.copy_as_float32(folder, source, "")
    encoder_folders.complete(folder)


def plain(answers: Any) -> List[Answer]:
    import numpy as np

    embeddings: List[Answer] = np.asarray(answers, dtype=np.float64).round(DECIMALS).tolist()
    return embeddings


def count_tokens(model: Path, inputs: Sequence[Input]) -> List[int]:
    return texts.count_tokens(model, inputs, encoder_folders.max_length(model))


def golds(data: Path, count: int, model: Path) -> Optional[List[Gold]]:
    """None: the embeddings are compared with one another."""
    return None


def scores(golds: Optional[Sequence[Gold]], answers: Mapping[str, Sequence[Answer]]) -> Dict[str, float]:
    """The mean cosine of a contender's embeddings with those of the BASELINE, where that one was measured."""
    import numpy as np

    if BASELINE not in answers:
        return {}
    reference = normalised(np.array(answers[BASELINE]))
    return {
        name: float((normalised(np.array(given)) * reference).sum(axis=1).mean()) for name, given in answers.items()
    }
