"""How long a device waits for its host from an answer to the next request: with the runner, and with a bare process.

The bare process sends and takes as many bytes over a socket pair as the runner does, and nothing else: what it needs is
the kernel's. One request at a time in both, and in place of a device something that sleeps.

Beside it, what makes most of the difference: how much slower code is that has lain still for as long.

The child that stands for the device of the bare process: SOCKET REQUEST_BYTES ANSWER_BYTES BATCH_S
"""

import itertools
import socket
import statistics
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from neuronbert import Runner
from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Batch
from neuronbert.backends.child import standard_error, start_child
from neuronbert.errors import UsageError
from neuronbert.runner.awake import awake_processors
from neuronbert.runner.frames import packed
from neuronbert.runner.messages import BatchDone, BatchOrder
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.load import percentile

BATCH_S = 0.0166  # of BERT-base with 128 tokens on a NeuronCore: long enough for caches to forget the code
TOKENS = 128
WARM_UP = 30
CALLS = 250
DEVICE_S = struct.Struct("d")  # how an answer of the bare device begins: the seconds that it took

BATCH = Batch(*[np.ones((1, TOKENS), np.int64)] * 3)


def measure_turnaround(folder: Path, *, requests: int) -> Dict[str, Any]:
    """The same with processors that may sleep and with such that may not, after a pause and without one."""
    artifacts = {batch_s: echo_artifact(folder / f"echo-{batch_s}", batch_s=batch_s) for batch_s in (BATCH_S, 0.0)}
    report = []
    for busy_wait, (batch_s, artifact) in itertools.product((False, True), artifacts.items()):
        with ExitStack() as stack:
            try:
                if busy_wait:
                    stack.enter_context(awake_processors())
            except UsageError as error:
                print_message(f"not measured: {error}")
                break
            bare, runner = figures(bare_s(requests, batch_s)), runner_figures(artifact, requests)
            calls_ms = lain_still_ms(requests, batch_s)
        setting = {"busy_wait": busy_wait, "batch_ms": batch_s * 1000}
        report.append({**setting, "bare": bare, "runner": runner, "calls_ms": calls_ms})
        print_message(report_line(report[-1]))
    return {"turnaround": report}


def report_line(measured: Dict[str, Any]) -> str:
    """A line for a person."""
    bare, runner = measured["bare"], measured["runner"]
    parts = ", ".join(f"{name} {part_ms:.2f}" for name, part_ms in runner["parts_ms"].items())
    return (
        f"{'busy-wait, ' if measured['busy_wait'] else ''}batches of {measured['batch_ms']:.1f} ms: "
        f"bare processes {bare['p50_ms']:.2f} ms (p95 {bare['p95_ms']:.2f}); "
        f"the runner {runner['p50_ms']:.2f} ms (p95 {runner['p95_ms']:.2f}), of it {parts}; "
        f"{CALLS} calls of Python then take {measured['calls_ms']:.3f} ms of CPU"
    )


def figures(turnarounds_s: Sequence[float]) -> Dict[str, float]:
    """Two percentiles in ms; the first requests are warm-up."""
    measured = turnarounds_s[WARM_UP:]
    return {"p50_ms": percentile(measured, 50) * 1000, "p95_ms": percentile(measured, 95) * 1000}


def lain_still_ms(rounds: int, pause_s: float) -> float:
    """CPU of ``CALLS`` calls of a function and ten small additions of numpy after each pause; the median."""
    measured_ns = []
    for _ in range(rounds):
        time.sleep(pause_s)
        began_ns = time.thread_time_ns()
        for _ in range(CALLS):
            _next(1)
        for _ in range(10):
            BATCH.input_ids + 1
        measured_ns.append(time.thread_time_ns() - began_ns)
    return statistics.median(measured_ns) / 1e6


def _next(number: int) -> int:
    return number + 1


# ---------------------------------------------------------------------------- with the runner


def runner_figures(artifact: Artifact, requests: int) -> Dict[str, Any]:
    """One client and one worker."""
    turnarounds_s, parts_ms = [], []
    with Runner(artifact, workers=1) as runner:
        for _ in range(WARM_UP + requests):
            began = time.perf_counter()
            breakdown = runner.submit_encoded(*BATCH, breakdown=True).result().breakdown
            turnarounds_s.append(time.perf_counter() - began - breakdown["device_ms"] / 1000)
            parts_ms.append(
                {
                    "to the worker and back": breakdown["worker_wait_ms"],
                    "from the queue to the socket": breakdown["queue_ms"] + breakdown["batch_wait_ms"],
                    "caller's thread and its result": breakdown["tokenise_ms"] + breakdown["decode_ms"],
                }
            )
    medians_ms = {name: statistics.median(parts[name] for parts in parts_ms[WARM_UP:]) for name in parts_ms[0]}
    whole = figures(turnarounds_s)
    medians_ms["between them"] = whole["p50_ms"] - sum(medians_ms.values())
    return {**whole, "parts_ms": medians_ms}


# ---------------------------------------------------------------------------- without it


def bare_s(requests: int, batch_s: float) -> List[float]:
    """The turnarounds of a process that does nothing but ask, and of another that sleeps and answers."""
    request = packed(BatchOrder(1, BATCH))
    logits = np.zeros((1, TOKENS), np.float32)
    answer_bytes = len(packed(BatchDone(1, {"start_logits": logits, "end_logits": logits}, batch_s)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        device = start_child(
            __name__,
            theirs.fileno(),
            len(request),
            answer_bytes,
            batch_s,
            stdout=standard_error(),  # stdout is for the figures
            pass_fds=[theirs.fileno()],
        )
        with device, ours.makefile("rb") as reader:
            turnarounds_s = [_asked_s(ours, reader.read, request, answer_bytes) for _ in range(WARM_UP + requests)]
            ours.shutdown(socket.SHUT_WR)
    return turnarounds_s


def _asked_s(sock: socket.socket, read: Any, request: memoryview, answer_bytes: int) -> float:
    began = time.perf_counter()
    sock.sendall(request)
    (device_s,) = DEVICE_S.unpack_from(read(answer_bytes))
    return time.perf_counter() - began - float(device_s)


def main(arguments: Sequence[str]) -> None:
    """The child: answers until the socket ends."""
    request_bytes, answer_bytes, batch_s = int(arguments[1]), int(arguments[2]), float(arguments[3])
    sock = socket.socket(fileno=int(arguments[0]))
    with sock, sock.makefile("rb") as reader:
        while len(reader.read(request_bytes)) == request_bytes:
            began = time.perf_counter()
            time.sleep(batch_s)
            took_s = time.perf_counter() - began
            sock.sendall(DEVICE_S.pack(took_s).ljust(answer_bytes, b"\0"))
