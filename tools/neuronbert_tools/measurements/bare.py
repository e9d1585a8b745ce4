"""The emulated device behind bare processes: what is left of it when nothing but the sockets is between.

One process for each core group, and as many threads in it as requests are in flight, each with a socket of its own to
the one thread that asks it. So there is no queue, no batching and no supervision.

Its child's arguments: ARTIFACT SOCKET...
"""

import itertools
import socket
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, List, Sequence, Tuple

from neuronbert import Engine
from neuronbert.artifact.manifest import load_artifact
from neuronbert.backends.base import Batch, Session
from neuronbert.backends.child import standard_error, start_child
from neuronbert.hardware.cores import merged_environment
from neuronbert.runner.frames import packed, reader_of, receive_blocking
from neuronbert.runner.messages import BatchDone, BatchOrder
from neuronbert.runner.placement import place_workers
from neuronbert_tools.load import closed_loop, in_threads

Line = Tuple[socket.socket, BinaryIO]  # to one thread of a child: what is asked goes out, answers come in


def bare_latencies_s(artifact: Path, batches: Sequence[Batch], seconds: float, in_flight: int) -> List[float]:
    """Latencies of all core groups together, each with ``in_flight`` threads that ask; seconds as of closed_loop."""
    with ExitStack() as stack:
        lines: List[Line] = []
        for place in place_workers(load_artifact(artifact)).places:
            pairs = [socket.socketpair() for _ in range(in_flight)]
            for own, _ in pairs:
                stack.enter_context(own)
            theirs = [pair[1].fileno() for pair in pairs]
            child = start_child(
                __name__,
                artifact,
                *theirs,
                stdout=standard_error(),  # stdout is for the figures
                environment=merged_environment(place.variables),
                pass_fds=theirs,
            )
            stack.enter_context(child)
            for own, other in pairs:
                other.close()
                stack.callback(own.shutdown, socket.SHUT_WR)  # before the process is waited for: it ends then
                lines.append((own, reader_of(own)))
        for _, reader in lines:
            receive_blocking(reader)  # it has loaded
        unused, own_line, turns = iter(lines), threading.local(), itertools.cycle(batches)

        def ask() -> None:
            if not hasattr(own_line, "line"):
                own_line.line = next(unused)
            _asked(own_line.line, next(turns))

        return closed_loop(len(lines), seconds, ask)


def _asked(line: Line, batch: Batch) -> BatchDone:
    sock, reader = line
    sock.sendall(packed(BatchOrder(1, batch)))
    answer = receive_blocking(reader)
    assert isinstance(answer, BatchDone)
    return answer


def _answer_all(session: Session, sock: socket.socket) -> None:
    with sock:  # closed when a batch raises: who waits for it would wait for ever
        reader = reader_of(sock)
        sock.sendall(packed(BatchDone(0, {}, 0.0)))
        with suppress(EOFError):
            while True:
                order = receive_blocking(reader)
                began = time.perf_counter()
                outputs = session.run(order.batch)
                sock.sendall(packed(BatchDone(order.number, outputs, time.perf_counter() - began)))


def main(arguments: Sequence[str]) -> None:
    """The child: answers on each socket until it ends."""
    sockets = [socket.socket(fileno=int(number)) for number in arguments[1:]]
    with Engine(Path(arguments[0])) as engine:
        in_threads([partial(_answer_all, engine.session, sock) for sock in sockets])
