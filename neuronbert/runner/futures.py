"""The futures that the runner gives out, for requests.py: what a callback of theirs raises does not end the runner."""

import functools
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple

if TYPE_CHECKING:
    AnyFuture = Future[Any]
else:
    AnyFuture = Future  # of Python 3.8 it cannot be subscripted

Report = Callable[[BaseException], None]


class RunnerFuture(AnyFuture):
    """A future whose callbacks are called in the runner's thread, one after the other, whatever one of them raises.

    A callback that is added to a future that is done already is called at once by whoever adds it: as of any future.
    """

    def __init__(self) -> None:
        super().__init__()
        self._delivery: Optional[Tuple[int, Report]] = None  # the thread that gives the outcome, and whom it tells

    def deliver(self, give: Callable[[], None], report: Report) -> None:
        """Call ``give``, which sets the outcome; what callbacks raise, ``sys.exit()`` too, goes to ``report``."""
        self._delivery = threading.get_ident(), report
        give()

    def add_done_callback(self, fn: Callable[[AnyFuture], object]) -> None:
        """As for any future."""
        super().add_done_callback(functools.partial(self._call, fn))

    def _call(self, fn: Callable[[AnyFuture], object], future: AnyFuture) -> None:
        try:
            fn(future)
        except BaseException as error:
            if self._delivery is None or self._delivery[0] != threading.get_ident():
                raise
            self._delivery[1](error)
