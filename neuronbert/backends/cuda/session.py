"""A loaded model of the cuda backend: batches in from several threads, each on a lane (lanes.py) of the GPU.

It imports torch, so backend.py imports it on use.
"""

import queue
import threading
from contextlib import contextmanager, suppress
from typing import Iterator, List, Optional, Sequence

import numpy as np
import torch

from neuronbert.backends.base import Batch, engine_errors
from neuronbert.backends.cuda.attention import CAPABILITY, FLASH_WIDTHS, Attention, flash_attention, padded_attention
from neuronbert.backends.cuda.encoder import Encoder
from neuronbert.backends.cuda.graph import Graph
from neuronbert.backends.cuda.lanes import GpuLane, Lane, release_memory
from neuronbert.backends.cuda.layers import Layers
from neuronbert.backends.cuda.packing import Packed, grown, halves, pack, unpacked
from neuronbert.backends.cuda.weights import FP8, Weights
from neuronbert.backends.outputs import Output, Outputs, fit_tokens, joined
from neuronbert.errors import BackendFailed, DeviceLost

# What is recorded before the first answer: single rows, for whoever sends one question at a time.
# The largest first: the others then find their memory among its.
PREPARED_TOKENS = (512, 448, 384, 320, 256, 192, 128, 96, 64, 32)

_CLOSED = "this session is closed"
MEMORY_HINT = "nvidia-smi names who else uses the GPU's memory; or a smaller model, or shorter rows"

_tf32 = threading.Lock()  # whether float32 products may be TF32 is a setting of the whole process


def open_session(
    graph: Graph, weights: Weights, outputs: Sequence[Output], precision: str, device: torch.device, streams: int
) -> "CudaSession":
    """A session with ``streams`` lanes on ``device``; on the CPU, for tests, lanes compute one after another."""
    encoder = make_encoder(graph, weights, device)
    if device.type != "cuda":
        return CudaSession(graph, [Lane(encoder) for _ in range(streams)], outputs, precision)
    lanes = [GpuLane(encoder, device) for _ in range(streams)]
    with torch.inference_mode(), _float32_products(precision):
        try:
            lanes[0].prepare([(tokens, 1) for tokens in PREPARED_TOKENS if tokens <= graph.longest_row])
        except RuntimeError as error:  # then they are recorded when they come, or run without
            if not is_out_of_memory(error):
                raise
    return CudaSession(graph, lanes, outputs, precision)


def make_encoder(graph: Graph, weights: Weights, device: torch.device) -> Encoder:
    """The encoder with the fastest layers and attention that ``device`` has."""
    if device.type != "cuda":
        return Encoder(graph, Layers(weights, graph.activation, graph.norm_epsilon), padded_attention)
    from neuronbert.backends.cuda.kernels import GpuLayers

    layers = GpuLayers(weights, graph.activation, graph.norm_epsilon)
    return Encoder(graph, layers, _gpu_attention(weights["embeddings.word"].dtype, graph.head_width, device))


def _gpu_attention(dtype: torch.dtype, head_width: int, device: torch.device) -> Attention:
    """Our kernel for the usual widths of heads; torch's for others; what every GPU and float32 have."""
    from neuronbert.backends.cuda import kernels

    if dtype == torch.float32 or torch.cuda.get_device_capability(device) < CAPABILITY:
        return padded_attention
    if head_width in kernels.ATTENTION_WIDTHS:
        return kernels.attention
    return (flash_attention() if head_width in FLASH_WIDTHS else None) or padded_attention


# Of torch, and of Triton, which compiles and loads its kernels by itself.
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Triton Error [CUDA]: out of memory")
# Behind "CUDA error: " or "Triton Error [CUDA]: ": those after which, as the CUDA runtime's documentation says of each,
# all that a process asks of the GPU fails, until another process asks.
_LOST = (
    "an illegal memory access", "the launch timed out", "hardware stack error", "an illegal instruction",
    "misaligned address", "operation not supported on global/shared address space", "invalid program counter",
    "unspecified launch failure", "device-side assert triggered", "uncorrectable ECC error",
    "uncorrectable NVLink error", "unknown error",
)  # fmt: skip


class CudaSession:
    """A model on one GPU; ``run`` may be called from as many threads at once as it has lanes."""

    def __init__(self, graph: Graph, lanes: Sequence[Lane], outputs: Sequence[Output], precision: str):
        self.concurrency = len(lanes)
        self.precision = precision
        self._graph = graph
        self._outputs = tuple(outputs)
        self._closed = False
        self._free: queue.LifoQueue[Optional[Lane]] = queue.LifoQueue()  # None: there will be no more
        for lane in reversed(lanes):  # the first is the first to be taken
            self._free.put(lane)

    def run(self, batch: Batch) -> Outputs:
        """The outputs of the batch. BackendFailed where it is none for this model, or one row is too much memory.

        A batch that does not fit the GPU's memory runs as two halves. DeviceLost when the GPU ends this process's use
        of it.
        """
        if self._closed:
            raise BackendFailed(_CLOSED)
        packed = pack(batch, self._graph)
        what = f"the GPU failed on a batch of shape {batch.input_ids.shape}"
        with engine_errors(what, hint="neuronbert doctor, or another variant"), _lost_devices(what):
            arrays = self._arrays(packed if packed.tokens else grown(packed, 1, packed.row_count))
        if arrays is not None:
            return unpacked(arrays, self._outputs, batch)
        if len(batch.input_ids) <= 1:
            raise BackendFailed(
                f"the GPU's memory does not hold one row of {packed.tokens} tokens beside the model",
                hint=MEMORY_HINT,
            )
        width = batch.input_ids.shape[1]
        return joined([fit_tokens(self.run(half), self._outputs, width) for half in halves(batch)])

    def _arrays(self, packed: Packed) -> Optional[List[np.ndarray]]:
        """The model's outputs; None for want of memory, with what the attempt took given back."""
        lane = self._free.get()
        if lane is None:
            self._free.put(None)  # for whoever else waits
            raise BackendFailed(_CLOSED)
        try:
            try:
                with torch.inference_mode(), _float32_products(self.precision):
                    return lane.run(packed)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            release_memory()  # not in the block above, in which the error holds what the attempt has made
            return None
        finally:
            self._free.put(None if self._closed else lane)

    def close(self) -> None:
        """Release the model; runs that are under way end as usual."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._free.get_nowait()
        self._free.put(None)
        release_memory()


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    """TF32 for products of float32 numbers inside, or not; models of 16 bits have none that matter."""
    if precision not in ("fp32", "tf32"):
        yield
        return
    with _tf32, tf32_products(precision == "tf32"):
        yield


@contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """The setting changed inside, where it has to be.

    From torch 2.9 on it has two names, and the older one raises where they disagree: as they do in a process that set
    the newer one alone, and must not after a run in one that knows the older one only.
    """
    products = torch.backends.cuda.matmul
    newer: Optional[str] = getattr(products, "fp32_precision", None)
    try:
        allowed: bool = products.allow_tf32
        older: str = torch.get_float32_matmul_precision()
    except RuntimeError:
        products.fp32_precision = "tf32" if wanted else "ieee"
        try:
            yield
        finally:
            products.fp32_precision = newer
        return
    if allowed == wanted:
        yield
        return
    products.allow_tf32 = wanted
    try:
        yield
    finally:
        if older == "medium":  # True would make it "high"
            torch.set_float32_matmul_precision(older)
        else:
            products.allow_tf32 = allowed
        if newer is not None:
            products.fp32_precision = newer


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a batch failed for want of the GPU's memory: torch's own error, or what CUDA and cuBLAS say of it."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _OUT_OF_MEMORY)


@contextmanager
def _lost_devices(what: str) -> Iterator[None]:
    """DeviceLost for what CUDA says of a failure after which it refuses everything in this process."""
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in _LOST):
            raise
        raise DeviceLost(f"{what}: {error}", hint="neuronbert doctor; nvidia-smi and the kernel's log (Xid)") from error


def precision_of(weights: Weights, asked: str) -> str:
    """What the weights on the GPU are; ``asked`` tells TF32 from FP32, which have the same."""
    if any(weight.dtype == FP8 for weight in weights.values()):
        return "fp8"
    dtype = weights["embeddings.word"].dtype
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "tf32" if asked == "tf32" else "fp32")
