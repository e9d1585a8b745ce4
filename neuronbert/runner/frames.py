"""Carries ``messages`` between the runner and its workers: length-prefixed pickles over a socket pair.

A batch and its results go as plain numbers and bytes: arrays and classes take longer to pickle and to read, in which a
core waits for its next batch (docs/measurements.md, "The runner").

Unpickling is safe here: both ends are this package in processes of one user, and a worker inherits its socket from
the runner that starts it, so nothing else can write to it.
"""

import io
import pickle
import socket
import struct
from collections import deque
from typing import Any, BinaryIO, Deque, Iterator, Optional, Tuple, Union

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.runner.messages import BatchDone, BatchOrder, FromWorker, ToWorker

_LENGTH = struct.Struct("<Q")
_READ_BYTES = 1 << 18

_NUMBERS = "biufc"  # kinds of a dtype whose bytes, with dtype and shape, are all that there is of an array

_PlainArray = Tuple[str, Tuple[int, ...], pickle.PickleBuffer]


def packed(message: Union[ToWorker, FromWorker]) -> memoryview:
    """``message`` with its length in front; TypeError for an array of anything but numbers."""
    frame = io.BytesIO()
    frame.write(bytes(_LENGTH.size))  # put in front of it afterwards, the length would cost a copy of the rest
    pickle.dump(_plain(message), frame, protocol=pickle.HIGHEST_PROTOCOL)
    data = frame.getbuffer()
    _LENGTH.pack_into(data, 0, len(data) - _LENGTH.size)
    return data


def _unpacked(body: Union[bytes, bytearray]) -> Any:
    return _message(pickle.loads(body))


def _plain(message: Union[ToWorker, FromWorker]) -> Any:
    if isinstance(message, BatchOrder):
        arrays = message.batch if message.wanted is None else (*message.batch, message.wanted)
        return message.number, [_plain_array(array) for array in arrays]
    if isinstance(message, BatchDone):
        outputs = {name: _plain_array(array) for name, array in message.outputs.items()}
        return message.number, outputs, message.device_s
    return message


def _message(plain: Any) -> Any:
    if type(plain) is not tuple:  # the other messages are classes of their own
        return plain
    if len(plain) == 2:
        number, arrays = plain
        input_ids, attention_mask, token_type_ids, *wanted = map(_array, arrays)
        return BatchOrder(number, Batch(input_ids, attention_mask, token_type_ids), *wanted)
    number, outputs, device_s = plain
    return BatchDone(number, {name: _array(array) for name, array in outputs.items()}, device_s)


def _plain_array(array: np.ndarray) -> _PlainArray:
    """What of ``array`` is sent. Its bytes arrive writable if they are here: torch warns of an array that is not."""
    refuse_no_numbers(array)
    in_order = array if array.flags.carray else array.copy()
    return array.dtype.str, array.shape, pickle.PickleBuffer(in_order.data)


def refuse_no_numbers(array: np.ndarray) -> None:
    """TypeError for an array of anything but numbers."""
    if array.dtype.kind not in _NUMBERS or isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{type(array).__name__} of {array.dtype}: nothing but arrays of numbers can be sent to another process"
        )


def _array(plain: Tuple[str, Tuple[int, ...], bytearray]) -> np.ndarray:
    dtype, shape, data = plain
    return np.ndarray(shape, dtype, data)


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
        self._unsent.append(packed(message))
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
            body = self._received[_LENGTH.size : end]
            del self._received[:end]
            yield _unpacked(body)

    def close(self) -> None:
        """Close the socket: the worker reads the end of its input and leaves."""
        self.sock.close()


def reader_of(sock: socket.socket) -> BinaryIO:
    """What ``receive_blocking`` reads from: it takes length and message from the socket in one call."""
    return open(sock.fileno(), "rb", _READ_BYTES, closefd=False)


def receive_blocking(reader: BinaryIO) -> Any:
    """The next message; EOFError when the other end is closed."""
    (length,) = _LENGTH.unpack(_exactly(reader, _LENGTH.size))
    return _unpacked(_exactly(reader, length))


def _exactly(reader: BinaryIO, count: int) -> bytes:
    data = reader.read(count)
    if len(data) < count:
        raise EOFError
    return data
