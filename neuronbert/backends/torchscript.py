"""TorchScript on the CPU: the FP32 model traced and frozen by torch, for machines that have torch and nothing else."""

import io
from pathlib import Path
from typing import Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, ExportResult, ExportSource, Recipe, ThroughputPlan, Variant, engine_errors
from neuronbert.backends.outputs import Output, Outputs, named
from neuronbert.backends.tracing import traceable
from neuronbert.checkpoint.families import TorchModel
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.libraries import optional_imports, require_libraries
from neuronbert.hardware.machine import library_versions

PRECISIONS: Tuple[str, ...] = ("fp32",)
STATIC_SHAPES = False
REQUIREMENTS: Mapping[str, str] = {"torch": ">=1.13.1"}
DEVICE = "cpu"
AUTO_RANK: Optional[int] = None  # what it made could only be loaded by name
BY_NAME_ONLY = True  # torch.from_file(...).fill_() in a scripted model writes any file
HOST_BOUND = False
FILE_NAME = "model.pt"


def check_available(precision: str) -> None:
    """Raise BackendUnavailable unless torch is installed and ``precision`` is fp32."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(
            f"torchscript has no precision {precision!r}", hint="--precision fp32, or --backend openvino"
        )
    require_libraries("torch")


def batch_invariant(precision: str) -> bool:
    """True: FP32 matrix products treat rows alike."""
    return True


def throughput_plan(threads: int) -> ThroughputPlan:
    """One batch at a time on all threads: torch has one intra-op pool per process, where streams would only queue."""
    return ThroughputPlan(streams=1, rows=8, tokens=2048)


def recipes(precision: str) -> Sequence[Recipe]:
    """A single empty recipe: tracing has no options."""
    return [{}]


@optional_imports()
def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Trace, freeze and save. Raises BackendFailed when torch cannot trace the model, OSError on a full disk."""
    import torch

    model, inputs = traceable(source)
    # Given a path, torch's own writer ends the process when the disk is full.
    saved = io.BytesIO()
    try:
        with torch.inference_mode(False), torch.no_grad():
            traced = torch.jit.freeze(torch.jit.trace(model, inputs, check_trace=False))
        torch.jit.save(traced, saved)
    except RuntimeError as error:
        raise BackendFailed(f"torch cannot trace this model: {error}", hint="--backend openvino") from error
    (folder / FILE_NAME).write_bytes(saved.getbuffer())
    return ExportResult(
        batch_invariant=True,
        requires={"libraries": {"torch": ">=" + ".".join(torch.__version__.split(".")[:2])}, "device": "cpu"},
        versions=library_versions(("torch", "transformers")),
        recipe=dict(recipe),
    )


@optional_imports()
def load(
    folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int
) -> "TorchScriptSession":
    """Load the traced model.

    Sets torch's intra-op threads to ``threads // streams``, and that is a setting of the whole process: a second
    session, or the caller's own torch code, runs with the last value set. Raises BackendUnavailable without torch.
    """
    check_available("fp32")
    import torch

    torch.set_num_threads(max(1, threads // streams))
    what = f"torch {torch.__version__} cannot load {folder / FILE_NAME}"
    with engine_errors(what, hint="compile the artifact again"):
        model = torch.jit.load(str(folder / FILE_NAME), map_location="cpu").eval()
        return TorchScriptSession(model, outputs, len(list(model.graph.inputs())) - 1, streams)


class TorchScriptSession:
    """A frozen TorchScript module; every call runs on the process's intra-op threads."""

    def __init__(self, model: TorchModel, outputs: Sequence[Output], inputs: int, concurrency: int):
        with optional_imports():
            import torch

        self._torch = torch
        self.concurrency = concurrency
        self.precision = _precision(model)
        self._model = model
        self._outputs = tuple(outputs)
        self._inputs = inputs

    def run(self, batch: Batch) -> Outputs:
        """The outputs of the batch. Raises BackendFailed when torch refuses the batch."""
        model = self._model
        if model is None:
            raise BackendFailed("this session is closed")
        arrays = [np.require(field, requirements=["C", "W"]) for field in batch[: self._inputs]]
        tensors = [self._torch.from_numpy(array) for array in arrays]
        what = f"torch failed on a batch of shape {batch.input_ids.shape}"
        with engine_errors(what, hint="neuronbert doctor, or another variant"), self._torch.inference_mode():
            return named(self._outputs, [tensor.numpy() for tensor in model(*tensors)])

    def close(self) -> None:
        """Release the module."""
        self._model = None


def _precision(model: TorchModel) -> str:
    """The type of the floating-point constants that freezing left in the graph."""
    constants = [
        node.t("value")
        for node in model.graph.findAllNodes("prim::Constant")
        if node.hasAttribute("value") and node.kindOf("value") == "t"
    ]
    types = {
        str(tensor.dtype).replace("torch.", "")
        for tensor in constants
        if tensor.is_floating_point() and tensor.dim() > 0
    }
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    if len(types) != 1 or not types <= set(names):
        raise BackendFailed(
            f"the traced model holds {', '.join(sorted(types)) or 'no'} weights", hint="compile the artifact again"
        )
    return names[types.pop()]
