"""neuronbert: a BERT checkpoint to a measured, supervised deployment: questions, labels, entities."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, List, Optional

from neuronbert.tasks import MODEL_CLASSES, OBJECT_CLASSES

__version__ = "0.1.0"

# name → module, imported on use: `import neuronbert` costs nothing and needs no backend.
_PUBLIC = {
    "compile_checkpoint": "neuronbert.compiler.compilation",
    "make_cascade": "neuronbert.compiler.cascade",
    "load_artifact": "neuronbert.artifact.manifest",
    "load_checkpoint": "neuronbert.tasks.checkpoints",
    "pipeline": "neuronbert.engine.pipeline",
    "Engine": "neuronbert.engine.engine",
    "Runner": "neuronbert.runner",
    "run_job": "neuronbert.runner.job",
    "WindowOptions": "neuronbert.tasks.question_answering.options",
    "AnswerOptions": "neuronbert.tasks.question_answering.options",
    "evaluate_artifact": "neuronbert.benchmark.evaluation",
    "benchmark_artifact": "neuronbert.benchmark.sweep",
    "plan": "neuronbert.planner.planning",
    "serve": "neuronbert.server.serving",
}

_MODULES = {
    "cores": "neuronbert.hardware.cores",
    "emulator": "neuronbert.emulator",
    "errors": "neuronbert.errors",
}

__all__ = ["__version__", *_PUBLIC, *MODEL_CLASSES, *OBJECT_CLASSES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in MODEL_CLASSES:
        return importlib.import_module("neuronbert.engine.model").model_class(name)
    if name in OBJECT_CLASSES:
        return importlib.import_module("neuronbert.engine.objects").object_class(name)
    if name not in _PUBLIC:
        raise AttributeError(f"module 'neuronbert' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> List[str]:
    return sorted(__all__)


class _CoresFinder:
    """Lets ``import neuronbert.cores`` find that public module, which lies in ``hardware``, when it is asked for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        return ModuleSpec(name, self) if name == "neuronbert.cores" else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_MODULES["cores"])
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system has just put the other name's there


sys.meta_path.append(_CoresFinder())  # type: ignore[arg-type]
