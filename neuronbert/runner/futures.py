"""The futures that the runner gives out, for requests.py: what a callback of theirs raises does not end the runner."""

import functools
import operator
import os
import threading
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional

from neuronbert.errors import RunnerClosed, UsageError
from neuronbert.runner.callbacks import call_guarded

if TYPE_CHECKING:
    AnyFuture = Future[Any]
else:
    AnyFuture = Future  # of Python 3.8 it cannot be subscripted

Report = Callable[[BaseException], None]


class _Condition(threading.Condition):
    """One whose ``with`` is C code, looked up before the lock is taken: Ctrl-C inside it cannot leave the lock taken.

    ``threading.Condition.__enter__`` is Python code: interrupted after the lock is taken and before ``with`` has begun,
    it leaves a lock for which the runner's thread would wait for ever.
    """

    __enter__ = property(operator.attrgetter("_lock.__enter__"))  # type: ignore[assignment]
    __exit__ = property(operator.attrgetter("_lock.__exit__"))  # type: ignore[assignment]


class RunnerFuture(AnyFuture):
    """A future whose callbacks are called in the runner's thread, one after the other, whatever one of them raises.

    A callback that is added to a future that is done already is called at once by whoever adds it: as of any future.
    Its outcome comes from the runner only: whoever holds it may cancel it, and nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._condition.__class__ = _Condition  # the one that is there: to make another is half of what a future costs
        self._is_wanted: Optional[bool] = None  # decided by ``begin``
        self._deliverer: Optional[threading.Thread] = None  # the thread that gives the outcome, while it does
        self._report: Report = _raise
        self._process = os.getpid()
        self.is_runner_here: Callable[[], bool] = _nowhere  # in a thread in which nobody may wait for it

    def begin(self) -> bool:
        """From now on it cannot be cancelled; False if it was. Then those that wait for it are told.

        May be called again. In the runner's thread only.
        """
        if self._is_wanted is None:
            self._is_wanted = super().set_running_or_notify_cancel()
        return self._is_wanted

    def deliver(self, result: object, report: Report) -> None:
        """Give it its result; what callbacks raise, ``sys.exit()`` too, goes to ``report``."""
        self._deliverer, self._report = threading.current_thread(), report
        super().set_result(result)
        self._deliverer = None

    def deliver_error(self, error: BaseException, report: Report) -> None:
        """Give it an error, as ``deliver`` gives a result."""
        self._deliverer, self._report = threading.current_thread(), report
        super().set_exception(error)
        self._deliverer = None

    def add_done_callback(self, fn: Callable[[AnyFuture], object]) -> None:
        """As for any future."""
        super().add_done_callback(functools.partial(self._call, fn))

    def _call(self, fn: Callable[[AnyFuture], object], future: AnyFuture) -> None:
        if self._deliverer is threading.current_thread():
            call_guarded(fn, future, self._report)
        else:
            fn(future)

    def _invoke_callbacks(self) -> None:
        """As of any future; then they are forgotten, for they refer to it, and none is called again.

        What refers to itself is kept until Python looks for such garbage, a request and its outputs too.
        """
        super()._invoke_callbacks()  # type: ignore[misc,unused-ignore]
        self._done_callbacks.clear()  # type: ignore[attr-defined,unused-ignore]
        self._report = _raise

    def result(self, timeout: Optional[float] = None) -> Any:
        """As of any future; if it is not done, UsageError in the runner's thread, RunnerClosed in a fork."""
        self._refuse_to_wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """As ``result``."""
        self._refuse_to_wait(timeout)
        return super().exception(timeout)

    def _refuse_to_wait(self, timeout: Optional[float]) -> None:
        if self.done():
            return
        if os.getpid() != self._process:
            raise forked_from(self._process)
        if timeout != 0 and self.is_runner_here():
            raise waits_for_itself()

    # An outcome from elsewhere would meet the runner's own in its thread, and end the runner for everybody.

    def set_result(self, result: object) -> NoReturn:
        """InvalidStateError."""
        raise InvalidStateError("this future gets its result from the runner")

    def set_exception(self, exception: Optional[BaseException]) -> NoReturn:
        """InvalidStateError."""
        raise InvalidStateError("this future gets its error from the runner")

    def set_running_or_notify_cancel(self) -> NoReturn:
        """InvalidStateError."""
        raise InvalidStateError("the runner says when this future is on its way")


def forked_from(process: int) -> RunnerClosed:
    """What a process gets that was forked from ``process``, the runner's: neither thread nor workers are there."""
    return RunnerClosed(
        f"this runner is process {process}'s, and this is process {os.getpid()}, forked from it",
        hint="make a Runner in each process, after the fork; or ask in the process that has it",
    )


def waits_for_itself() -> UsageError:
    """What a callback gets that waits for the runner."""
    return UsageError(
        "a callback of the runner cannot wait for the runner: it is called in the thread that it would wait for",
        hint="submit() and add_done_callback(), or wait in a thread of your own",
    )


def _nowhere() -> bool:
    return False


def _raise(error: BaseException) -> NoReturn:
    raise error
