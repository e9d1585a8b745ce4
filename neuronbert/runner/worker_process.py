"""A worker process: one engine, batches in, logits out, until the runner closes the socket or dies.

Its environment (cores, threads) was set by the runner before this process started, so before anything heavy is
imported. It answers to nobody but the runner: Ctrl-C and SIGTERM reach a whole process group, and it is the runner
that decides what is still finished.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Dict, List

from neuronbert.backends.base import Batch
from neuronbert.errors import BackendFailed, NeuronBertError
from neuronbert.runner.frames import packed, receive_blocking

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: List[str]) -> None:
    """Load what the first message names, then answer batches. ``arguments``: the socket and the parent's pid."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(int(arguments[1]))
    sock = socket.socket(fileno=int(arguments[0]))
    try:
        Worker(sock).serve(receive_blocking(sock))
    except (EOFError, ConnectionError):
        pass
    # Threads may still be inside the device; nobody waits for what they bring.
    sys.stderr.flush()
    os._exit(0)


def die_with_parent(parent: int) -> None:
    """Be killed when the runner is, also while the device has this process's attention (Linux).

    Elsewhere the end of the socket is noticed after the batch at hand.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before the request was made
        os._exit(0)


class Worker:
    """The loaded engine and the threads that keep as many batches on the device as it takes at once."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._session: Any = None

    def serve(self, job: Dict[str, Any]) -> None:
        """Load, report, and run batches until the socket ends (EOFError)."""
        try:
            facts = self._load(job)
        except Exception as error:
            self._send({"kind": "unable", "error": _sendable(error)})
            return
        self._send({"kind": "ready", **facts})
        for number in range(1, facts["concurrency"]):
            threading.Thread(target=self._run_in_turn, name=f"batch-{number}", daemon=True).start()
        self._run_received()

    def _load(self, job: Dict[str, Any]) -> Dict[str, Any]:
        if job["cpus"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, job["cpus"])
        started = time.perf_counter()
        from neuronbert.engine.engine import Engine

        engine = Engine(job["artifact"], variant=job["variant"], threads=job["threads"], streams=job["streams"])
        self._session = engine.session
        return {
            "pid": os.getpid(),
            "variant": engine.name,
            "plan": tuple(engine.plan),
            "concurrency": engine.session.concurrency,
            "parallel": engine.variant["pipeline_cores"] or engine.session.concurrency,
            "load_s": time.perf_counter() - started,
        }

    def _run_received(self) -> None:
        """Whoever is free waits for the next batch itself: handed on by another thread it would start later."""
        while True:
            with self._receiving:
                message = receive_blocking(self._sock)
            self._run(*message)

    def _run_in_turn(self) -> None:
        try:
            self._run_received()
        except (EOFError, ConnectionError):
            os._exit(0)  # the runner is gone

    def _run(self, number: int, batch: Batch) -> None:
        started = time.perf_counter()
        try:
            outputs = self._session.run(Batch(*batch))
        except Exception as error:
            self._send({"kind": "failed", "batch": number, "error": _sendable(error)})
            return
        device_s = time.perf_counter() - started
        self._send({"kind": "done", "batch": number, "outputs": outputs, "device_s": device_s})

    def _send(self, message: Dict[str, Any]) -> None:
        data = packed(message)
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError:
                os._exit(0)  # the runner is gone


def _sendable(error: Exception) -> NeuronBertError:
    """Ours as it is; anything else in words, for its class may not exist where it is read."""
    if isinstance(error, NeuronBertError):
        return error
    return BackendFailed(f"{type(error).__name__}: {error}", hint="neuronbert doctor")
