"""neuronbert: a BERT question-answering checkpoint to a measured, supervised deployment."""

import importlib
from typing import Any, List

__version__ = "0.1.0"

# name → module, imported on use: `import neuronbert` costs nothing and needs no backend.
_PUBLIC = {
    "compile_checkpoint": "neuronbert.compiler",
    "load_artifact": "neuronbert.artifact",
    "load_checkpoint": "neuronbert.checkpoint",
    "pipeline": "neuronbert.question_answering",
    "Engine": "neuronbert.engine",
    "Runner": "neuronbert.runner",
    "run_job": "neuronbert.job",
    "WindowOptions": "neuronbert.windows",
    "AnswerOptions": "neuronbert.answers",
    "NeuronBertForQuestionAnswering": "neuronbert.modeling",
    "evaluate_artifact": "neuronbert.evaluate",
    "plan": "neuronbert.planner",
}

_MODULES = ("cores", "emulator", "errors")

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"neuronbert.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'neuronbert' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> List[str]:
    return sorted(__all__)
