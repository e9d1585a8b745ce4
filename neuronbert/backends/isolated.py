"""A session in a child process (child.py), for compiler: its device is free again as soon as it is closed.

A NeuronCore belongs to the process that used it until that process ends. Compiling in a notebook or a service must
not keep the cores that workers started afterwards need.
"""

import contextlib
import io
import json
import socket
import subprocess
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type, cast

import numpy as np

from neuronbert import errors
from neuronbert.backends import load_backend
from neuronbert.backends.base import Batch, Bucket, Session, Variant
from neuronbert.backends.buckets import BucketedSession
from neuronbert.backends.child import start_child
from neuronbert.backends.outputs import Output, Outputs


class DeviceProcess:
    """A child that loads variants and answers batches, one at a time; its errors are raised here, of the same class."""

    def __init__(self, folders: Sequence[Path], variants: Sequence[Variant], outputs: Sequence[Output], threads: int):
        self._lock = threading.Lock()
        parent_end, child_end = socket.socketpair()
        with child_end:
            self._child = start_child(
                "neuronbert.backends.isolated",
                child_end.fileno(),
                stdout=subprocess.DEVNULL,  # stdout is for a command's result
                pass_fds=[child_end.fileno()],
            )
        self._connection = Connection(parent_end.detach())
        job = {
            "folders": [str(folder) for folder in folders],
            "variants": [dict(variant) for variant in variants],
            "outputs": list(outputs),
            "threads": threads,
        }
        try:
            self.precision = str(self.ask(json.dumps(job).encode())["precision"])
        except BaseException:
            self.close()
            raise

    def ask(self, message: bytes) -> Mapping[str, Any]:
        """The child's answer, facts or arrays by name. Raises what the child raised, BackendFailed when it died."""
        with self._lock:
            try:
                self._connection.send_bytes(message)
                answer = self._connection.recv_bytes()
            except (EOFError, OSError) as error:
                code = self._child.wait()
                how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                raise errors.BackendFailed(
                    f"the process that held the device ended {how}", hint="neuronbert doctor"
                ) from error
        return _raised_or_facts(json.loads(answer)) if answer[:1] == b"{" else _unpacked(answer)

    def close(self) -> None:
        """End the child: its cores are free when this returns."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(10)
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class IsolatedSession:
    """One of the static-shape variants that a DeviceProcess has loaded."""

    concurrency = 1
    copies = 1

    def __init__(self, process: DeviceProcess, number: int, variant: Variant):
        self.name = str(variant["name"])
        self.shape = Bucket(variant["batch_size"], variant["sequence_length"], variant["pipeline_cores"])
        self.precision = process.precision
        self._process = process
        self._number = number

    def run(self, batch: Batch, copy: Optional[int] = None) -> Outputs:
        """The outputs of a batch of the variant's shape."""
        return dict(self._process.ask(_packed({**batch._asdict(), "number": np.array(self._number)})))

    def close(self) -> None:
        """Ends the process, and with it the sessions beside this one."""
        self._process.close()


def load_isolated(
    folders: Sequence[Path], variants: Sequence[Variant], outputs: Sequence[Output], *, threads: int
) -> BucketedSession:
    """Static-shape variants in a child process, taking batches of any size up to the longest."""
    process = DeviceProcess(folders, variants, outputs, threads)
    sessions = [IsolatedSession(process, number, variant) for number, variant in enumerate(variants)]
    return BucketedSession(sessions, outputs, variants)


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # for numpy 2, one could be allow_pickle
    return buffer.getvalue()


def _unpacked(message: bytes) -> Dict[str, np.ndarray]:
    with np.load(io.BytesIO(message), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _raised_or_facts(facts: Dict[str, Any]) -> Dict[str, Any]:
    if "error" not in facts:
        return facts
    raise _error_class(facts["kind"])(facts["error"], hint=facts["hint"])


def _error_class(name: str) -> Type[errors.NeuronBertError]:
    from neuronbert.backends.neuron import failures

    kind = getattr(failures, name, None) or getattr(errors, name, errors.BackendFailed)
    return cast(Type[errors.NeuronBertError], kind)


# ---------------------------------------------------------------------------- the child


def main(arguments: List[str]) -> None:
    """Load what the first message names, then answer batches until the parent closes."""
    connection = Connection(int(arguments[0]))
    with contextlib.suppress(EOFError, OSError):
        job = json.loads(connection.recv_bytes())
        try:
            sessions = _load_all(job)
        except errors.NeuronBertError as error:
            connection.send_bytes(_described(error))
            return
        connection.send_bytes(json.dumps({"precision": sessions[0].precision}).encode())
        while True:
            arrays = _unpacked(connection.recv_bytes())
            try:
                session = sessions[int(arrays.pop("number"))]
                answer = _packed(session.run(Batch(**arrays)))
            except errors.NeuronBertError as error:
                answer = _described(error)
            connection.send_bytes(answer)


def _load_all(job: Mapping[str, Any]) -> List[Session]:
    backend = load_backend(job["variants"][0]["backend"])
    outputs = [Output(*output) for output in job["outputs"]]
    return [
        backend.load(Path(folder), variant, outputs=outputs, threads=job["threads"], streams=1)
        for folder, variant in zip(job["folders"], job["variants"])
    ]


def _described(error: errors.NeuronBertError) -> bytes:
    return json.dumps({"error": error.message, "hint": error.hint, "kind": type(error).__name__}).encode()
