"""Tiny models of the cuda backend on the CPU, by the code that also runs on a GPU; for the tests of this folder."""

from pathlib import Path
from typing import Any, Dict

import numpy as np
from tiny_source import TinySource

from neuronbert.backends.base import Batch
from neuronbert.backends.cuda import backend
from neuronbert.backends.cuda.graph import Graph
from neuronbert.backends.outputs import PER_TOKEN, Outputs
from neuronbert.checkpoint.head_steps import Column, linear
from neuronbert.tasks.feature_extraction import task as feature_extraction
from neuronbert.tasks.feature_extraction.modules import KEY, SentenceModules
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.text_classification import task as text_classification
from neuronbert.tasks.token_classification import task as token_classification

TASKS = {
    task.NAME: task for task in (question_answering, text_classification, token_classification, feature_extraction)
}
LABELS = {"id2label": {"0": "calm", "1": "glad", "2": "cross"}}
EXACT = 2e-5  # what FP32 may differ by, in numbers of about 1: the sums have another order

GRAPH = Graph(
    vocabulary=50,
    positions=12,
    token_types=2,
    embedding_width=8,
    hidden=8,
    layers=1,
    heads=2,
    intermediate=16,
    activation="gelu",
    norm_epsilon=1e-12,
    skips_padding_id=False,
    padding_id=0,
    head=((linear("qa_outputs"), Column(0)), (linear("qa_outputs"), Column(1))),
)


def exported(source: TinySource, folder: Path, precision: str = "fp32") -> Path:
    """The folder, with what ``export`` writes."""
    backend.export(source, precision, {}, folder)
    return folder


def on_cpu(source: TinySource, folder: Path, precision: str = "fp32", streams: int = 1) -> Any:
    """A session on the CPU of what ``export`` writes into ``folder``."""
    import torch

    exported(source, folder, precision)
    return backend.load_on(torch.device("cpu"), folder, precision, source.outputs, streams)


def encoder_source(modules: SentenceModules, model_type: str = "bert", **changes: Any) -> TinySource:
    """A sentence encoder."""
    return TinySource(model_type, feature_extraction, **{KEY: modules.document()}, **changes)


def farthest(actual: Outputs, expected: Outputs, source: TinySource, batch: Batch) -> float:
    """The largest difference over seen tokens and over rows that have any; the shapes must be equal."""
    seen = batch.attention_mask.astype(bool)
    differences: Dict[str, float] = {}
    for output in source.outputs:
        assert actual[output.name].shape == expected[output.name].shape, output.name
        assert actual[output.name].dtype == np.float32
        kept = seen if output.per == PER_TOKEN else seen.any(axis=1)
        distance = np.abs(actual[output.name][kept] - expected[output.name][kept])
        differences[output.name] = float(distance.max()) if distance.size else 0.0
    return max(differences.values())


def batch_of(mask: np.ndarray, seed: int = 0, vocabulary: int = 120) -> Batch:
    """Random ids and types under ``mask``, bool or int [rows, tokens]; what it hides is anything."""
    random = np.random.default_rng(seed)
    ids = random.integers(2, vocabulary, size=mask.shape)
    types = random.integers(0, 2, size=mask.shape)
    return Batch(ids.astype(np.int64), mask.astype(np.int64), types.astype(np.int64))


def part_of(batch: Batch, rows: Any, tokens: Any = slice(None)) -> Batch:
    """Some rows of a batch, in their order, and some of their tokens."""
    return Batch(*(field[rows][:, tokens] for field in batch))
