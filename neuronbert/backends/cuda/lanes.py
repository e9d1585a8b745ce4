"""Where a batch of packed tokens runs: a lane is a CUDA stream with its recorded graphs; session.py has some.

It imports torch.
"""

import threading
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch

from neuronbert.backends.cuda.attention import Rows
from neuronbert.backends.cuda.encoder import Encoder, Inputs
from neuronbert.backends.cuda.packing import LONGEST_STEPS, ROW_STEPS, TOKEN_STEPS, Packed, grown, next_step

# Recorded batches of one lane: each has its own inputs and outputs, and all share the memory between them.
MOST_GRAPHS = 64
_TOKEN_ARRAYS = 5  # of Packed: each has a number for each token
_ALIGNED = 4  # int32 numbers in 16 bytes: Triton compiles a kernel again for arrays that begin elsewhere

_recording = threading.Lock()  # CUDA records one graph at a time in a process


def release_memory() -> None:
    """Give back what torch keeps of the GPU's memory for later; not while a graph is recorded, which it refuses."""
    if torch.cuda.is_available():
        with _recording:
            torch.cuda.empty_cache()


class Lane:
    """One batch after another, on the CPU: the same model and the same packed arrays as on a GPU."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder

    def run(self, packed: Packed) -> List[np.ndarray]:
        """The head's outputs, float32 [tokens, …] or [rows, …]."""
        inputs = _views(torch.from_numpy(_joined(packed)), _Shape.of(packed))
        return [output.numpy() for output in self._encoder(inputs)]


class _Shape(NamedTuple):
    """The sizes of a packed batch."""

    tokens: int
    rows: int
    longest: int

    @classmethod
    def of(cls, packed: Packed) -> "_Shape":
        return cls(packed.tokens, packed.row_count, packed.longest)

    @property
    def stride(self) -> int:
        """Numbers from one array of tokens to the next."""
        return -(-self.tokens // _ALIGNED) * _ALIGNED


def _joined(packed: Packed) -> np.ndarray:
    """All of a batch's arrays one behind another: one copy to the GPU takes less time than six."""
    stride = _Shape.of(packed).stride
    joined = np.zeros(_TOKEN_ARRAYS * stride + len(packed.starts), dtype=np.int32)
    joined[: _TOKEN_ARRAYS * stride].reshape(_TOKEN_ARRAYS, stride)[:, : packed.tokens] = packed[:_TOKEN_ARRAYS]
    joined[_TOKEN_ARRAYS * stride :] = packed.starts
    return joined


def _views(joined: torch.Tensor, shape: _Shape) -> Inputs:
    of_tokens = joined[: _TOKEN_ARRAYS * shape.stride].view(_TOKEN_ARRAYS, shape.stride)[:, : shape.tokens]
    ids, positions, types, places, rows = of_tokens
    return Inputs(ids, positions, types, Rows(joined[_TOKEN_ARRAYS * shape.stride :], rows, places, shape.longest))


class _Recorded(NamedTuple):
    """A CUDA graph, the memory that it reads its inputs from, and the memory that it leaves its outputs in."""

    graph: "torch.cuda.CUDAGraph"
    joined: torch.Tensor
    outputs: Tuple[torch.Tensor, ...]


class GpuLane(Lane):
    """A stream of a GPU. Small batches, which would wait for the CPU to launch kernels, run as recorded graphs."""

    def __init__(self, encoder: Encoder, device: torch.device, most_graphs: int = MOST_GRAPHS):
        super().__init__(encoder)
        self._most_graphs = most_graphs
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graphs: Dict[_Shape, _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, packed: Packed) -> List[np.ndarray]:
        shape = self._grown_shape(packed)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if shape is None:
                host = _pinned(_joined(packed))
                return self._fetched(self._encoder(_views(self._sent(host), _Shape.of(packed))), small=False)
            host = _pinned(_joined(grown(packed, shape.tokens, shape.rows - 1)))
            if shape not in self._graphs and len(self._graphs) < self._most_graphs:
                self._graphs[shape] = self._record(host, shape)
            if shape not in self._graphs:
                return self._fetched(self._encoder(_views(self._sent(host), shape)), small=True)
            recorded = self._graphs[shape]
            recorded.joined.copy_(host, non_blocking=True)
            recorded.graph.replay()
            return self._fetched(recorded.outputs, small=True)

    def prepare(self, shapes: Sequence[Tuple[int, int]]) -> None:
        """Record batches of these (tokens, rows) before anybody waits for one."""
        for tokens, rows in shapes:
            starts = np.linspace(0, tokens, rows + 1).astype(np.int32)
            zeros = np.zeros(tokens, dtype=np.int32)
            self.run(Packed(zeros, zeros, zeros, zeros, zeros, starts, int(np.diff(starts).max())))

    def _grown_shape(self, packed: Packed) -> Optional[_Shape]:
        """What such a batch is grown to, and recorded with: one row more than it has. None: it runs as it is.

        It depends on the batch alone, recorded or not: products of other shapes may differ in their last bits.
        Where attention pads, the added row, which is as long as all that was added, would pad every other.
        """
        if packed.tokens > TOKEN_STEPS[-1] or packed.row_count > (1 if self._encoder.pads else ROW_STEPS[-1]):
            return None
        tokens, rows = next_step(packed.tokens, TOKEN_STEPS), next_step(packed.row_count, ROW_STEPS)
        longest = next_step(max(packed.longest, tokens - packed.tokens), LONGEST_STEPS)
        return _Shape(tokens, rows + 1, longest)

    def _record(self, host: torch.Tensor, shape: _Shape) -> _Recorded:
        joined = self._sent(host)
        inputs = _views(joined, shape)
        with _recording:
            self._encoder(inputs)  # what libraries do at first use cannot be recorded
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = self._encoder(inputs)
        return _Recorded(graph, joined, outputs)

    def _sent(self, host: torch.Tensor) -> torch.Tensor:
        return host.to(self._device, non_blocking=True)

    def _fetched(self, outputs: Sequence[torch.Tensor], small: bool) -> List[np.ndarray]:
        hosts = [torch.empty(output.shape, dtype=output.dtype, pin_memory=True) for output in outputs]
        for host, output in zip(hosts, outputs):
            host.copy_(output, non_blocking=True)
        if small:  # a thread that spins knows soonest
            self._stream.synchronize()
        else:
            done = torch.cuda.Event(blocking=True)
            done.record(self._stream)
            done.synchronize()
        return [host.numpy().copy() for host in hosts]


def _pinned(array: np.ndarray) -> torch.Tensor:
    host = torch.empty(array.shape, dtype=torch.int32, pin_memory=True)
    host.numpy()[:] = array
    return host
