"""Carries ``messages`` between the runner and its workers: length-prefixed pickles over a socket pair.

Unpickling is safe here: both ends are this package in processes of one user, and a worker inherits its socket from
the runner that starts it, so nothing else can write to it.
"""

import pickle
import socket
import struct
from collections import deque
from typing import Any, Deque, Iterator, Optional, Union

from neuronbert.runner.messages import FromWorker, ToWorker

_LENGTH = struct.Struct("<Q")
_READ_BYTES = 1 << 18


def packed(message: Union[ToWorker, FromWorker]) -> bytes:
    """``message`` with its length in front."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Channel:
    """The runner's end: never blocks, so that a worker that hangs cannot stop the runner."""

    def __init__(self, sock: socket.socket):
        sock.setblocking(False)
        self.sock = sock
        self._received = bytearray()
        self._unsent: Deque[memoryview] = deque()

    @property
    def has_unsent(self) -> bool:
        """Whether ``flush`` has more to do."""
        return bool(self._unsent)

    def send(self, message: ToWorker) -> None:
        """Hand over ``message``, now or at the next ``flush``."""
        self._unsent.append(memoryview(packed(message)))
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes. A peer that is gone is noticed when reading."""
        try:
            while self._unsent:
                sent = self.sock.send(self._unsent[0])
                rest = self._unsent.popleft()[sent:]
                if rest:
                    self._unsent.appendleft(rest)
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def receive(self) -> Optional[Iterator[FromWorker]]:
        """The messages that have arrived; None when the peer is gone."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return iter(())
        except OSError:
            return None
        if not data:
            return None
        self._received += data
        return self._complete()

    def _complete(self) -> Iterator[FromWorker]:
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            end = _LENGTH.size + length
            if len(self._received) < end:
                return
            body = bytes(self._received[_LENGTH.size : end])
            del self._received[:end]
            yield pickle.loads(body)

    def close(self) -> None:
        """Close the socket: the worker reads the end of its input and leaves."""
        self.sock.close()


def receive_blocking(sock: socket.socket) -> Any:
    """The next message; EOFError when the other end is closed."""
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    return pickle.loads(_exactly(sock, length))


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
