"""A child of the tests: compiles tiny models untuned in one process, as importing TVM's compiler takes seconds."""

import io
import json
from pathlib import Path
from typing import Sequence

from tiny_source import TinySource

from neuronbert.backends.tvm import backend, compile_job
from neuronbert.backends.tvm.compile_job import EXPORTED, JOB
from neuronbert.tasks import load_task

LABELS = {"id2label": {"0": "A", "1": "B", "2": "C"}, "label2id": {"A": 0, "B": 1, "C": 2}}
CASES = [  # a family each; of the tasks the one whose head is left
    ("electra", "question-answering"),
    ("bert", "text-classification"),  # with a pooler
    ("roberta", "token-classification"),
    ("distilbert", "feature-extraction"),
]
SHAPE = {"batch_size": 2, "sequence_length": 24}


def source_of(family: str, task: str) -> TinySource:
    layers = "n_layers" if family == "distilbert" else "num_hidden_layers"
    return TinySource(family, load_task(task), **{layers: 1}, **({} if task == "question-answering" else LABELS))


def main(arguments: Sequence[str]) -> int:
    """Compile each of CASES into a folder of its number below ``arguments[0]``."""
    for number, (family, task) in enumerate(CASES):
        job = Path(arguments[0]) / str(number)
        (job / "kept").mkdir(parents=True)
        recipe = {**SHAPE, "threads": 2, "tuning_minutes": 0.0}
        backend._export_torch(source_of(family, task), recipe, job / EXPORTED)
        (job / JOB).write_text(json.dumps({"recipe": recipe, "kept": str(job / "kept")}))
        compile_job._compile(job, io.StringIO())
    return 0
