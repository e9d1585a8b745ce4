"""neuronbert: a BERT question-answering checkpoint to a measured, supervised deployment."""

import importlib
import sys
from types import ModuleType
from typing import Any, List

from neuronbert.tasks import MODEL_CLASSES

__version__ = "0.1.0"

# name → module, imported on use: `import neuronbert` costs nothing and needs no backend.
_PUBLIC = {
    "compile_checkpoint": "neuronbert.compiler.compilation",
    "load_artifact": "neuronbert.artifact.manifest",
    "load_checkpoint": "neuronbert.tasks.checkpoints",
    "pipeline": "neuronbert.engine.pipeline",
    "Engine": "neuronbert.engine.engine",
    "Runner": "neuronbert.runner",
    "run_job": "neuronbert.runner.job",
    "WindowOptions": "neuronbert.tasks.question_answering.windows",
    "AnswerOptions": "neuronbert.tasks.question_answering.answers",
    "evaluate_artifact": "neuronbert.benchmark.evaluation",
    "benchmark_artifact": "neuronbert.benchmark.sweep",
    "plan": "neuronbert.planner.planning",
}

_MODULES = {
    "cores": "neuronbert.hardware.cores",
    "emulator": "neuronbert.emulator",
    "errors": "neuronbert.errors",
}

__all__ = ["__version__", *_PUBLIC, *MODEL_CLASSES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in MODEL_CLASSES:
        return importlib.import_module("neuronbert.engine.model").model_class(MODEL_CLASSES[name])
    if name not in _PUBLIC:
        raise AttributeError(f"module 'neuronbert' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> List[str]:
    return sorted(__all__)


def _cores(name: str) -> Any:
    return getattr(importlib.import_module(_MODULES["cores"]), name)


# `from neuronbert.cores import ...` is public too, and like everything here imports the module on use.
sys.modules["neuronbert.cores"] = ModuleType("neuronbert.cores")
vars(sys.modules["neuronbert.cores"])["__getattr__"] = _cores
