"""What other threads ask of the runner's thread, and the pipe that wakes it; ``dispatcher`` takes the messages out."""

import os
import threading
from collections import deque
from typing import Any, Callable, Deque, Iterator, NamedTuple, Optional, Sequence, Union

from neuronbert.runner.requests import Request


class Accept(NamedTuple):
    """Requests were let in, as one: none of them leaves before the others are in the queue."""

    requests: Sequence[Request]


class Cancel(NamedTuple):
    """The futures of requests were cancelled before they were on their way."""

    requests: Sequence[Request]


class Decoded(NamedTuple):
    """The result of a request was made, or ``error`` was raised instead."""

    request: Request
    result: Any
    error: Optional[BaseException]
    decode_s: float

    @property
    def requests(self) -> Sequence[Request]:
        """That one, as the other messages have theirs."""
        return (self.request,)


class Drain(NamedTuple):
    """Finish what was accepted, for ``drain_s`` at most, then end."""

    drain_s: float


InboxMessage = Union[Accept, Cancel, Decoded, Drain]


class Inbox:
    """Messages from any thread to one, which sleeps until ``wake_descriptor`` is readable."""

    def __init__(self) -> None:
        self._messages: Deque[InboxMessage] = deque()
        self.wake_descriptor, self._wake_writing = os.pipe()
        os.set_blocking(self.wake_descriptor, False)
        os.set_blocking(self._wake_writing, False)
        self.wake: Callable[[], None] = self.write_wake_up  # how the thread is told; from any thread
        self._asleep = False
        self._is_closed = False
        self._pipe = threading.RLock()  # a signal's handler may put something while this thread does

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: InboxMessage) -> None:
        """Hand ``message`` to the runner's thread. From any thread."""
        self._messages.append(message)
        if self._asleep:
            self._asleep = False
            self.wake()

    def write_wake_up(self) -> None:
        """Make ``wake_descriptor`` readable."""
        with self._pipe:  # once closed, its number may be that of another file
            if not self._is_closed:
                try:
                    os.write(self._wake_writing, b"!")
                except BlockingIOError:
                    pass  # full: it is awake already

    def may_sleep(self) -> bool:
        """Whether nothing waits. From now on ``put`` wakes the thread, until ``woke_up``."""
        self._asleep = True  # before looking at the messages: one that is put between the two must wake the thread
        return not self._messages

    def woke_up(self) -> None:
        """The thread is awake and reads the inbox without being woken."""
        self._asleep = False

    def read_wake_up(self) -> None:
        """Empty the pipe, which is readable."""
        os.read(self.wake_descriptor, 4096)

    def messages(self) -> Iterator[InboxMessage]:
        """Take the messages out, oldest first, including those that arrive meanwhile."""
        while self._messages:
            try:
                message = self._messages.popleft()
            except IndexError:  # after the end several threads may do this, and another was faster
                return
            yield message

    def close(self) -> None:
        """Close the pipe; ``put`` still works, but wakes no thread."""
        with self._pipe:
            self._is_closed = True
            os.close(self.wake_descriptor)
            os.close(self._wake_writing)
