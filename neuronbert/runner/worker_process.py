"""A worker process: one engine, batches in, results out, until the runner closes the socket or dies.

Its environment (cores, threads) was set by the runner before this process started, so before anything heavy is
imported. It ignores Ctrl-C, SIGTERM and SIGHUP: these reach a whole process group, and the runner decides what is
still finished. ``supervision`` is the runner's side of it.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Callable, List, NoReturn, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.artifact.manifest import load_same_artifact
from neuronbert.backends.base import Batch, Session
from neuronbert.backends.outputs import Output, Outputs, refuse_misshapen
from neuronbert.errors import BackendFailed, DeviceLost, NeuronBertError, counted, in_words
from neuronbert.runner.frames import packed, reader_of, receive_blocking, refuse_no_numbers
from neuronbert.runner.messages import (
    BatchDone,
    BatchFailed,
    BatchOrder,
    BlockDone,
    BlockOrder,
    BlockStep,
    FromWorker,
    LoadFailed,
    LoadOrder,
    WorkerReady,
)

if TYPE_CHECKING:
    from neuronbert.engine.engine import Engine

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: List[str]) -> None:
    """Load what the first message names, then answer batches. ``arguments``: the socket and the parent's pid."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    die_with_parent(int(arguments[1]))
    sock = socket.socket(fileno=int(arguments[0]))
    try:
        worker = Worker(sock)
        worker.serve(worker.receive())
    except (EOFError, ConnectionError):  # the runner is gone before it said what to load
        os._exit(0)
    sys.stderr.flush()
    os._exit(1)  # it could not load


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the runner dies, even while a batch runs (Linux).

    Elsewhere the end of the socket is noticed after the batch.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(0)


class Worker:
    """The loaded engine and the threads that keep as many batches on the device as it takes at once."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self._reader = reader_of(sock)
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._session: Optional[Session] = None
        self._outputs: Sequence[Output] = ()
        self._engine: Optional[Engine] = None

    def receive(self) -> Any:
        """The runner's next message; EOFError when it has closed the socket."""
        return receive_blocking(self._reader)

    def serve(self, order: LoadOrder) -> None:
        """Load, report, and run batches until the socket ends, and with it the process; returns if it cannot load."""
        try:
            ready = self._load(order)
            _start_threads(ready.concurrency - 1, self._run_or_end)
        except Exception as error:
            self._send(LoadFailed(_sendable(error)))
            return
        self._send(ready)
        self._run_or_end()

    def _load(self, order: LoadOrder) -> WorkerReady:
        if order.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, order.cpus)
        started = time.perf_counter()
        from neuronbert.engine.engine import Engine

        artifact = load_same_artifact(order.artifact, order.digest, order.signed_by)
        engine = Engine(artifact, variant=order.variant, threads=order.threads, streams=order.streams)
        self._engine, self._session, self._outputs = engine, engine.session, engine.specs
        return WorkerReady(
            pid=os.getpid(),
            variant=engine.name,
            plan=engine.plan,
            concurrency=engine.session.concurrency,
            parallel=engine.variant["pipeline_cores"] or engine.session.concurrency,
            load_s=time.perf_counter() - started,
        )

    def _run_received(self) -> NoReturn:
        """Run batch after batch. Each thread reads its own from the socket: handed over, a batch would start later."""
        while True:
            with self._receiving:
                order: Union[BatchOrder, BlockOrder] = self.receive()
            self._send_packed(self._answer(order))

    def _run_or_end(self) -> NoReturn:
        """Ends the process when this thread cannot go on: the batch that it holds would never come back."""
        try:
            self._run_received()
        except (EOFError, ConnectionError):  # the runner is gone; other threads may still be inside the device
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _answer(self, order: Union[BatchOrder, BlockOrder]) -> memoryview:
        answer = self._run(order)
        try:
            return packed(answer)
        except TypeError as error:  # outputs that are no numbers: this batch's failure, not the worker's
            return packed(BatchFailed(order.number, _sendable(error)))

    def _run(self, order: Union[BatchOrder, BlockOrder]) -> Union[BatchDone, BlockDone, BatchFailed]:
        try:
            if isinstance(order, BlockOrder):
                return self._run_block(order)
            outputs, device_s = self._run_batch(order.batch)
            return BatchDone(order.number, self._reduced(outputs, order), device_s)
        except DeviceLost:  # a new process has the device again: _run_or_end ends this one, the runner starts it
            raise
        except BaseException as error:  # sys.exit() too: it would end this thread and not the process
            return BatchFailed(order.number, _sendable(error))

    def _run_batch(self, batch: Batch) -> Tuple[Outputs, float]:
        assert self._session is not None
        started = time.perf_counter()
        outputs = refuse_misshapen(self._session.run(batch), self._outputs, *batch.input_ids.shape)
        return outputs, time.perf_counter() - started

    def _reduced(self, outputs: Outputs, order: BatchOrder) -> Outputs:
        """What is sent of the outputs, as BatchDone has it.

        In this thread: where the device takes several batches at once, it is with another thread's meanwhile.
        """
        if order.wanted is None:
            return outputs
        assert self._engine is not None and self._engine.task.REDUCTION is not None
        for array in outputs.values():
            refuse_no_numbers(array)
        is_reduced = np.zeros(len(order.batch.input_ids), dtype=bool)
        is_reduced[order.reduced_rows] = True
        chosen = {name: array[is_reduced] for name, array in outputs.items()}
        left = self._engine.task.REDUCTION.reduce(chosen, order.wanted[:, 1:])
        rest = {} if is_reduced.all() else {name: array[~is_reduced] for name, array in outputs.items()}
        return {**rest, **left}

    def _run_block(self, order: BlockOrder) -> BlockDone:
        """In this thread alone, one batch after another: the device's other streams have other blocks."""
        from neuronbert.runner.blocks import answer_block

        assert self._engine is not None

        def run(batch: Batch, share: float) -> Outputs:
            outputs, device_s = self._run_batch(batch)
            rows, width = batch.input_ids.shape
            tokens = int(batch.attention_mask.sum())
            self._send(BlockStep(order.number, rows, width, tokens, device_s, share))
            return outputs

        return BlockDone(order.number, answer_block(order.block, self._engine, run))

    def _send(self, message: FromWorker) -> None:
        self._send_packed(packed(message))

    def _send_packed(self, data: memoryview) -> None:
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError:
                os._exit(0)  # the runner is gone


def _start_threads(count: int, run: Callable[[], NoReturn]) -> None:
    """Start them before the worker says that it is ready: what is missing later would be blamed on a request."""
    for number in range(count):
        try:
            threading.Thread(target=run, name=f"batch-{number + 1}", daemon=True).start()
        except RuntimeError as error:
            raise BackendFailed(
                f"{counted(number, 'thread')} of the {count:,} for a worker's streams could be started: {error}",
                hint="fewer streams=, threads= or workers=, or more processes for this user (ulimit -u) or container",
            ) from None


def _sendable(error: BaseException) -> NeuronBertError:
    """One of our own errors as it is; any other in words, because the runner may not be able to import its class."""
    if isinstance(error, NeuronBertError):
        return error
    return BackendFailed(in_words(error), hint="neuronbert doctor")
