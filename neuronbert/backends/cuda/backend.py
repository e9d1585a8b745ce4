"""NVIDIA GPUs: safetensors and a graph description in the artifact, our own encoder without padding at load."""

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Sequence, Tuple

from neuronbert.backends.base import ExportResult, ExportSource, Recipe, ThroughputPlan, Variant, engine_errors
from neuronbert.backends.cuda.graph import graph_of, load_graph, refuse_other_outputs, save_graph
from neuronbert.backends.outputs import Output
from neuronbert.backends.tracing import disk_errors, model_bytes
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import library_version, library_versions
from neuronbert.hardware.requirements import version_meets

if TYPE_CHECKING:
    from neuronbert.backends.cuda.session import CudaSession

PRECISIONS: Tuple[str, ...] = ("fp32", "tf32", "bf16", "fp16", "fp8")
STATIC_SHAPES = False
REQUIREMENTS: Mapping[str, str] = {"torch": ">=2.4", "safetensors": ">=0.4", "nvidia-ml-py": ">=12.535"}
DEVICE = "cuda"
AUTO_RANK: Optional[int] = 0
BY_NAME_ONLY = False
HOST_BOUND = True

# The least compute capability with the precision's matrix units: Volta, Ampere, Ada.
CAPABILITIES: Dict[str, Tuple[int, int]] = {
    "fp32": (7, 0),
    "fp16": (7, 0),
    "tf32": (8, 0),
    "bf16": (8, 0),
    "fp8": (8, 9),
}
# FP8 units take matrices whose sides are multiples of this (torch._scaled_mm).
FP8_MULTIPLE = 16
FP8_TORCH = ">=2.7"  # the first with a scale for each row on all GPUs that have FP8 (pytorch/pytorch#145676)


def check_available(precision: str) -> None:
    """Raise BackendUnavailable unless there is a GPU with ``precision``, and a torch that can use it."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(
            f"cuda has no precision {precision!r}", hint=f"--precision {','.join(PRECISIONS)}, or --backend openvino"
        )
    _require_libraries()
    installed = library_version("torch") or "0"
    needed = _libraries(precision)["torch"]
    if not version_meets(installed, needed):
        raise BackendUnavailable(
            f"torch {installed} is installed, and {precision} on cuda needs {needed}",
            hint=f'python -m pip install --upgrade "torch{needed}"',
        )
    capability, wanted = _capability(), CAPABILITIES[precision]
    if capability < wanted:
        there = ",".join(name for name, least in CAPABILITIES.items() if least <= capability)
        raise BackendUnavailable(
            f"this GPU has compute capability {capability[0]}.{capability[1]}, and {precision} needs "
            f"{wanted[0]}.{wanted[1]}",
            hint=f"--precision {there}" if there else "--backend openvino uses the CPU",
        )
    if importlib.util.find_spec("triton") is None:
        raise BackendUnavailable(
            "triton is not installed, which torch's builds for CUDA bring along on Linux: the GPU's kernels are in it",
            hint="python -m pip install triton",
        )
    _refuse_without_kernels(capability)
    if precision == "fp8":
        _try_fp8()


def _libraries(precision: str) -> Dict[str, str]:
    return {**REQUIREMENTS, **({"torch": FP8_TORCH} if precision == "fp8" else {})}


@optional_imports("cuda")
def _refuse_without_kernels(capability: Tuple[int, int]) -> None:
    """BackendUnavailable where the installed torch was built for other GPUs: its builds leave out old ones."""
    import torch

    built = torch.cuda.get_arch_list()
    major, minor = capability
    kernels = [name for name in built if re.match(rf"sm_{major}[0-{minor}]\D*$", name)]
    # compute_90 is code that the driver compiles for any GPU from that one on
    portable = [name for name in built if re.match(r"compute_\d+$", name) and int(name[8:]) <= 10 * major + minor]
    if built and not kernels + portable:
        raise BackendUnavailable(
            f"torch {torch.__version__} has no kernels for this GPU of compute capability {major}.{minor}: it is built "
            f"for {', '.join(built)}",
            hint="a build for an older CUDA has them: python -m pip install --force-reinstall torch --index-url "
            "https://download.pytorch.org/whl/cu126",
        )


@optional_imports("cuda")
def _try_fp8() -> None:
    """BackendUnavailable where the libraries refuse a product that the chip has units for."""
    import torch

    matrix = torch.zeros((FP8_MULTIPLE, FP8_MULTIPLE), device="cuda").to(torch.float8_e4m3fn)
    scale = torch.ones((FP8_MULTIPLE, 1), device="cuda")
    try:
        torch._scaled_mm(matrix, matrix.t(), scale, scale.t(), out_dtype=torch.bfloat16, use_fast_accum=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BackendUnavailable(
            f"torch {torch.__version__} has no FP8 product with a scale for each row on this GPU: {error}",
            hint="--precision bf16, or a newer torch",
        ) from error


@optional_imports("cuda")
def _require_libraries() -> None:
    import pynvml as pynvml
    import safetensors as safetensors
    import torch as torch


@optional_imports("cuda")
def _capability() -> Tuple[int, int]:
    """The compute capability of the GPU that this process uses; BackendUnavailable without one."""
    import torch

    if not torch.cuda.is_available():
        build = torch.version.cuda
        raise BackendUnavailable(
            "no GPU can be used here: " + (f"torch is built for CUDA {build}, and finds none" if build
                                           else f"torch {torch.__version__} is built without CUDA"),
            hint="neuronbert doctor says what is missing; --backend openvino uses the CPU",
        )  # fmt: skip
    major, minor = torch.cuda.get_device_capability()
    return major, minor


def batch_invariant(precision: str) -> bool:
    """True: rows meet in nothing but the order of a product's sums."""
    return True


def throughput_plan(threads: int) -> ThroughputPlan:
    """Three batches at once: the GPU computes one while another is on its way there, and a third on its way back."""
    return ThroughputPlan(streams=3, rows=512, tokens=32768)


def recipes(precision: str) -> Sequence[Recipe]:
    """A single empty recipe: nothing is chosen."""
    return [{}]


@optional_imports("cuda")
def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Write graph.json and weights.safetensors. BackendFailed for a model that the encoder has no code for."""
    from neuronbert.backends.cuda.weights import make_weights, save_weights

    graph = graph_of(source.config, source.head, "token_type_ids" in source.input_names)
    odd = [size for pair in graph.products().values() for size in pair if size % FP8_MULTIPLE]
    if precision == "fp8" and odd:
        raise BackendFailed(
            f"FP8 units take sizes that are multiples of {FP8_MULTIPLE}, and this model has one of {odd[0]}",
            hint="--precision bf16",
        )
    reference = source.torch_model()
    named: Dict[str, Any] = dict(reference.model.named_parameters())
    weights = make_weights(named, source.config, graph, precision)
    save_graph(graph, folder)
    with disk_errors(folder, model_bytes(reference)):
        save_weights(weights, folder)
    least = CAPABILITIES[precision]
    return ExportResult(
        batch_invariant=True,
        requires={
            "libraries": _libraries(precision),
            "device": DEVICE,
            "compute_capability": f">={least[0]}.{least[1]}",
        },
        versions=library_versions(("torch", "triton", "safetensors", "transformers")),
        recipe=dict(recipe),
    )


@optional_imports("cuda")
def load(folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> "CudaSession":
    """Put the model onto this process's first GPU, with ``streams`` batches at once; the CPU threads are torch's.

    Raises BackendUnavailable without a GPU that can, BackendFailed when the files are not what ``export`` wrote.
    """
    check_available(variant["precision"])
    import torch

    return load_on(torch.device("cuda", torch.cuda.current_device()), folder, variant["precision"], outputs, streams)


@optional_imports("cuda")
def load_on(device: Any, folder: Path, precision: str, outputs: Sequence[Output], streams: int) -> "CudaSession":
    """As ``load``, on a torch.device, which may be the CPU."""
    from neuronbert.backends.cuda.session import MEMORY_HINT, is_out_of_memory, open_session, precision_of
    from neuronbert.backends.cuda.weights import load_weights

    graph = load_graph(folder)
    refuse_other_outputs(graph, outputs, folder)
    with engine_errors(
        f"{folder} cannot be put onto {device}", hint="compile the artifact again, or neuronbert doctor"
    ):
        try:
            weights = load_weights(folder, graph, precision, device)
            return open_session(graph, weights, outputs, precision_of(weights, precision), device, streams)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise BackendFailed(f"the GPU's memory does not hold the model of {folder}", hint=MEMORY_HINT) from error
