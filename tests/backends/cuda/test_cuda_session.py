"""A session: several threads at once, want of memory, devices that are lost, the end, the process's TF32."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_models import EXACT, batch_of, encoder_source, farthest, on_cpu, part_of
from tiny_source import TinySource, random_batch

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import PER_TOKEN, Output
from neuronbert.errors import BackendFailed, DeviceLost
from neuronbert.tasks.feature_extraction.modules import SentenceModules

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

from neuronbert.backends.cuda import session as session_module  # noqa: E402  # it imports torch
from neuronbert.backends.cuda.graph import Graph  # noqa: E402
from neuronbert.backends.cuda.packing import Packed  # noqa: E402


class Lane:
    """Does what it is told before it computes, and knows who else computes."""

    inside: List[int] = []
    most = 0

    def __init__(self, inner: Any, before: Callable[[Packed], None]):
        self._inner = inner
        self._before = before

    def run(self, packed: Packed) -> List[np.ndarray]:
        self._before(packed)
        self.inside.append(1)
        Lane.most = max(Lane.most, len(self.inside))
        found: List[np.ndarray] = self._inner.run(packed)
        self.inside.pop()
        return found


@pytest.fixture(scope="module")
def source() -> TinySource:
    """Outputs of tokens and of rows."""
    return encoder_source(SentenceModules(("mean", "max"), include_prompt=False))


@pytest.fixture
def opened(source: TinySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a session whose lanes do something before each batch."""
    inner = session_module.Lane

    def open_(before: Callable[[Packed], None] = lambda packed: None, streams: int = 1) -> Any:
        monkeypatch.setattr(session_module, "Lane", lambda encoder: Lane(inner(encoder), before))
        return on_cpu(source, tmp_path, streams=streams)

    return open_


def assert_agrees(session: Any, source: TinySource, batch: Batch) -> None:
    assert farthest(session.run(batch), source.logits(batch), source, batch) < EXACT


# ---------------------------------------------------------------------- want of memory

OUT_OF_MEMORY = [
    lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79.11 GiB in total"),
    lambda: RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    lambda: RuntimeError("Triton Error [CUDA]: out of memory"),
]


@pytest.mark.parametrize("number", range(len(OUT_OF_MEMORY)))
def test_a_batch_that_does_not_fit_is_split_until_it_does(opened: Any, source: TinySource, number: int) -> None:
    sizes: List[int] = []

    def need_memory(packed: Packed) -> None:
        sizes.append(packed.row_count)
        if packed.row_count > 3:
            raise OUT_OF_MEMORY[number]()

    session = opened(need_memory)
    batch = random_batch(11, 30, padding=2)
    assert_agrees(session, source, batch)
    assert sizes == [11, 6, 3, 3, 5, 3, 2]
    session.close()


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12), most=st.integers(20, 60))
def test_the_rows_come_back_in_order_and_as_wide_as_they_were(lengths: List[int], most: int) -> None:
    """Memory for some number of tokens; outputs are the tokens' ids, and the rows' first ones."""

    class Echo:
        def run(self, packed: Packed) -> List[np.ndarray]:
            if packed.tokens > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            first = packed.ids[np.minimum(packed.starts[:-1], packed.tokens - 1)]
            return [packed.ids.astype(np.float32), first.astype(np.float32)]

    graph = Graph(1000, 99, 2, 8, 8, 1, 1, 8, "gelu", 1e-12, False, 0, ())
    outputs = (Output("ids", PER_TOKEN), Output("first", "row"))
    session = session_module.CudaSession(graph, [Echo()], outputs, "fp32")
    batch = batch_of(np.arange(23)[None, :] < np.array(lengths)[:, None], len(lengths), 1000)
    found = session.run(batch)
    np.testing.assert_array_equal(found["ids"], batch.input_ids * batch.attention_mask)
    some = np.array(lengths) > 0
    np.testing.assert_array_equal(found["first"][some], batch.input_ids[some, 0])
    assert found["first"].shape == (len(lengths),)


@pytest.mark.parametrize("rows", [0, 1])
def test_one_row_that_does_not_fit_is_this_batch_s_failure(opened: Any, source: TinySource, rows: int) -> None:
    """Or none at all: there is nothing to split, for ever."""
    full = [True]

    def need_memory(packed: Packed) -> None:
        if full[0]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    session = opened(need_memory)
    batch = part_of(random_batch(3, 30), slice(rows))
    said = f"the GPU's memory does not hold one row of {30 * rows} tokens beside the model"
    with pytest.raises(BackendFailed, match=said) as caught:
        session.run(batch)
    assert not isinstance(caught.value, DeviceLost) and caught.value.hint
    full[0] = False
    assert_agrees(session, source, random_batch(3, 30))


def test_a_long_row_among_short_ones_fails_the_batch_and_no_other(opened: Any, source: TinySource) -> None:
    def need_memory(packed: Packed) -> None:
        if packed.longest > 40:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    session = opened(need_memory)
    batch = random_batch(4, 60, padding=15)
    with pytest.raises(BackendFailed, match="one row of 60 tokens"):
        session.run(batch)
    assert_agrees(session, source, part_of(batch, [2, 3]))


# ---------------------------------------------------------------------- lost devices, and other failures

LOST = [
    "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "Triton Error [CUDA]: an illegal memory access was encountered",
]


@pytest.mark.parametrize("text", LOST)
def test_a_device_that_refuses_this_process_is_lost(opened: Any, source: TinySource, text: str) -> None:
    kind = getattr(torch, "AcceleratorError", RuntimeError)

    def fail(packed: Packed) -> None:
        try:
            raise kind(text)
        except TypeError:  # it takes more, in some releases
            raise RuntimeError(text) from None

    with pytest.raises(DeviceLost, match=r"the GPU failed on a batch of shape \(2, 9\)") as caught:
        opened(fail).run(random_batch(2, 9))
    assert text in caught.value.message and "doctor" in str(caught.value.hint)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmulAlgoGetHeuristic`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"), IndexError("index 7 is out of bounds"),
        KeyError("x"), ValueError(""), MemoryError(), AssertionError(),
    ],
)  # fmt: skip
def test_any_other_failure_is_this_batch_s(opened: Any, source: TinySource, error: Exception) -> None:
    broken = [True]

    def fail(packed: Packed) -> None:
        if broken.pop():
            raise error

    broken[:] = [False, True]
    session = opened(fail)
    with pytest.raises(BackendFailed, match=r"batch of shape \(2, 9\)") as caught:
        session.run(random_batch(2, 9))
    assert not isinstance(caught.value, DeviceLost) and caught.value.__cause__ is error
    assert_agrees(session, source, random_batch(2, 9))  # its lane is there again


# ---------------------------------------------------------------------- several threads, and the end


@pytest.mark.parametrize("streams", [1, 3])
def test_several_threads_at_once_give_what_one_gives(opened: Any, source: TinySource, streams: int) -> None:
    session = opened(streams=streams)
    assert session.concurrency == streams
    batches = [random_batch(1 + seed % 5, 5 + seed, seed=seed, padding=1) for seed in range(40)]
    expected = [session.run(batch) for batch in batches]
    Lane.most = 0
    with ThreadPoolExecutor(6) as pool:
        for found, one in zip(pool.map(session.run, batches), expected):
            for name, array in one.items():
                np.testing.assert_array_equal(found[name], array)
    assert 1 <= Lane.most <= streams


def test_out_of_memory_in_several_threads_at_once(opened: Any, source: TinySource) -> None:
    def need_memory(packed: Packed) -> None:
        if packed.row_count > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    session = opened(need_memory, streams=2)
    batches = [random_batch(7, 20, seed=seed, padding=1) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for found, batch in zip(pool.map(session.run, batches), batches):
            assert farthest(found, source.logits(batch), source, batch) < EXACT


def test_a_closed_session_says_so(opened: Any) -> None:
    session = opened(streams=2)
    session.run(random_batch(1, 5))
    session.close()
    session.close()
    for _ in range(3):
        with pytest.raises(BackendFailed, match="this session is closed"):
            session.run(random_batch(1, 5))


def test_the_end_waits_for_nobody_and_keeps_nobody_waiting(opened: Any, source: TinySource) -> None:
    """A run that is under way ends as usual; one that waits for its lane, or comes too late for one, is refused."""
    entered, proceed = threading.Event(), threading.Event()

    def wait(packed: Packed) -> None:
        entered.set()
        assert proceed.wait(60)

    session = opened(wait)
    batch = random_batch(2, 9)
    with ThreadPoolExecutor(3) as pool:
        under_way = pool.submit(session.run, batch)
        assert entered.wait(60)
        waiting = [pool.submit(session.run, batch) for _ in range(2)]
        session.close()
        for future in waiting:
            with pytest.raises(BackendFailed, match="closed"):
                future.result(60)
        proceed.set()
        assert farthest(under_way.result(60), source.logits(batch), source, batch) < EXACT
    with pytest.raises(BackendFailed, match="closed"):
        session.run(batch)


def test_the_model_is_released_with_the_last_run(opened: Any) -> None:
    """A session that somebody still holds keeps no GPU's memory."""
    entered, proceed = threading.Event(), threading.Event()

    def wait(packed: Packed) -> None:
        entered.set()
        assert proceed.wait(60)

    session = opened(wait, streams=2)
    lanes = [weakref.ref(lane) for lane in session._free.queue]
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(session.run, random_batch(2, 9))
        assert entered.wait(60)
        session.close()
        proceed.set()
        under_way.result(60)
    gc.collect()
    assert [lane() for lane in lanes] == [None, None]


def test_an_end_in_the_middle_of_a_call_is_told(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited for ever for a lane."""
    session, pack = opened(), session_module.pack

    def close_first(batch: Batch, graph: Graph) -> Packed:
        session.close()
        packed: Packed = pack(batch, graph)
        return packed

    monkeypatch.setattr(session_module, "pack", close_first)
    with ThreadPoolExecutor(1) as pool, pytest.raises(BackendFailed, match="closed"):
        pool.submit(session.run, random_batch(1, 5)).result(60)


# ---------------------------------------------------------------------- the process's settings

NEWER = hasattr(torch.backends.cuda.matmul, "fp32_precision")


def reading(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return "refused"


def setting() -> List[Any]:
    products = torch.backends.cuda.matmul
    return [
        reading(torch.get_float32_matmul_precision),
        reading(lambda: products.allow_tf32),
        reading(lambda: getattr(products, "fp32_precision", None)),
    ]


def set_newer(value: str) -> Callable[[], None]:
    return lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", value)


SETTINGS = {
    "as it starts": lambda: None,
    **{name: lambda name=name: torch.set_float32_matmul_precision(name) for name in ("highest", "high", "medium")},
    "allowed": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    **({f"newer {name}": set_newer(name) for name in ("ieee", "tf32", "none")} if NEWER else {}),
}


@contextmanager
def process_set(name: str) -> Iterator[None]:
    """The process with a setting, and as torch starts afterwards."""
    try:
        SETTINGS[name]()
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend in (torch.backends.cuda, torch.backends.mkldnn) if NEWER else ():
            backend.matmul.fp32_precision = "none"


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_process_s_tf32_is_what_it_was_after_a_run_and_an_error(
    name: str, precision: str, source: TinySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: List[Any] = []

    def look(packed: Packed) -> None:
        allowed = reading(lambda: torch.backends.cuda.matmul.allow_tf32)
        inside.append(getattr(torch.backends.cuda.matmul, "fp32_precision", allowed))
        if packed.row_count > 1:
            raise ZeroDivisionError

    inner = session_module.Lane
    monkeypatch.setattr(session_module, "Lane", lambda encoder: Lane(inner(encoder), look))
    session = on_cpu(source, tmp_path, precision)
    with process_set(name):
        before = setting()
        session.run(random_batch(1, 5))
        assert setting() == before
        with pytest.raises(BackendFailed):
            session.run(random_batch(2, 5))
        assert setting() == before
        expected = {"fp32": {"ieee", "none", False}, "tf32": {"tf32", True}, "bf16": {before[2], before[1]}}[precision]
        assert set(inside) <= expected


def test_sessions_of_both_precisions_do_not_change_each_other_s(
    source: TinySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"fp32": set(), "tf32": set()}
    inner, sessions = session_module.Lane, []
    for precision in found:

        def look(packed: Packed, precision: str = precision) -> None:
            time.sleep(0.001)  # so that another thread has its turn
            found[precision].add(torch.backends.cuda.matmul.allow_tf32)

        monkeypatch.setattr(session_module, "Lane", lambda encoder, look=look: Lane(inner(encoder), look))
        folder = tmp_path / precision
        folder.mkdir()
        sessions.append(on_cpu(source, folder, precision, streams=2))
    with process_set("highest"), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: sessions[number % 2].run(random_batch(2, 7)), range(60)))
    assert found == {"fp32": {False}, "tf32": {True}}


def test_gradients_are_not_kept_and_stay_as_the_caller_has_them(opened: Any, source: TinySource) -> None:
    session = opened()
    with torch.enable_grad():
        session.run(random_batch(1, 5))
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
