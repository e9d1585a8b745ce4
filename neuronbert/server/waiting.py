"""What asyncio waits for in other threads: the futures of a runner, and text that is tokenised. For ``exchange``."""

import asyncio
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence

from neuronbert.errors import Overloaded
from neuronbert.runner.requests import Prepared

TOKENISING_S_PER_BYTE = 0.3e-3 / 1024  # by the demo checkpoint's tokenizer (measured; rows come on top)
# Text of at most so many bytes is tokenised in the loop's own thread: nobody else waits longer than about a
# millisecond, and the way to another thread and back takes 0.2 ms.
INLINE_BYTES = 2048
# Text that is with the threads together, beside that of the last one that was let in: what it becomes has some hundred
# times its size (measured: 1.9 GB of 15 MB).
MOST_TOKENISING_BYTES = 8 << 20


class Tokenising:
    """Threads that tokenise, and how much text is with them: what nobody waits for any more is not stopped by that.

    most_bytes: beside those of the last that was let in, however large it is. threads: None is one for each CPU and one
    more, of at most 8.
    """

    def __init__(self, most_bytes: int, threads: Optional[int] = None):
        self.most_bytes = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._thread_count = threads or min(8, (os.cpu_count() or 1) + 1)
        self._threads = ThreadPoolExecutor(self._thread_count, thread_name_prefix="neuronbert-tokenise")

    @property
    def has_room(self) -> bool:
        """Whether ``begin`` would let text in."""
        return self._bytes < self.most_bytes

    def begin(self, prepare: Callable[[], Prepared], size_bytes: int) -> "Future[Prepared]":
        """Call ``prepare`` in a thread, for about so many bytes of text; Overloaded where there are too many."""
        if not self.has_room:
            raise Overloaded(
                f"{self._bytes:,} bytes of text wait to be tokenised",
                hint="ask again later",
                wait_s=self._bytes * TOKENISING_S_PER_BYTE / self._thread_count,
            )
        with self._lock:
            self._bytes += size_bytes
        future = self._threads.submit(prepare)
        future.add_done_callback(lambda _: self._ended(size_bytes))
        return future

    def _ended(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes -= size_bytes


def when_done(loop: asyncio.AbstractEventLoop, futures: Sequence["Future[Any]"]) -> "asyncio.Future[None]":
    """Done once all of ``futures`` are, or with the error of the first that fails: the loop is woken once."""
    done: asyncio.Future[None] = loop.create_future()
    left = Countdown(len(futures))
    thread = threading.get_ident()

    def called(future: "Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if not left.is_last() and error is None:
            return
        if threading.get_ident() == thread:  # in which the runner works
            _settle(done, error)
        else:
            loop.call_soon_threadsafe(_settle, done, error)

    for future in futures:
        future.add_done_callback(called)
    return done


class Countdown:
    """Counts down in several threads: an answer may come while the next is waited for."""

    def __init__(self, count: int):
        self._count = count
        self._lock = threading.Lock()

    def is_last(self) -> bool:
        """Count one; whether it was the last."""
        with self._lock:
            self._count -= 1
            return self._count == 0


def _settle(done: "asyncio.Future[None]", error: Optional[BaseException]) -> None:
    if error is not None:
        fail(done, error)
    elif not done.done():
        done.set_result(None)


def fail(done: "asyncio.Future[Any]", error: BaseException) -> None:
    """Have whoever waits for ``done`` see ``error``, where it does not have its result."""
    if not done.done():
        done.set_exception(error)
