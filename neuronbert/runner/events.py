"""What happened to the workers, as structured events: recorded, logged, and passed to a listener."""

import json
import logging
import sys
import time
import traceback
from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, Dict, Iterator, Optional, Protocol

from neuronbert.errors import in_words, refuse_uncallable
from neuronbert.runner.callbacks import call_guarded

Event = Dict[str, Any]  # "event", "at" (Unix time in seconds) and the facts
Listener = Callable[[Event], None]

log = logging.getLogger("neuronbert.runner")
LAST_EVENTS = 1000
# Events that a person should look at.
_WARNINGS = frozenset({"died", "unable", "poison", "batch_failed", "callback_raised"})


class Report(Protocol):
    """How the runner's thread reports an event: ``Events.happened``."""

    def __call__(self, event: str, **facts: object) -> None: ...


class Events:
    """The last events, oldest first."""

    def __init__(self, listener: Optional[Listener] = None):
        refuse_uncallable("on_event", listener, hint="on_event=print")
        self._last: Deque[Event] = deque(maxlen=LAST_EVENTS)
        self._listener = listener

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._last))

    def happened(self, event: str, **facts: object) -> None:
        """Record an event. What a listener or a handler of the log raises goes no further: both are the user's."""
        record = {"event": event, "at": time.time(), **facts}
        self._last.append(record)
        call_guarded(_log_event, record, _print_error)
        if self._listener is not None:
            call_guarded(self._listener, record, _listener_raised)


def _log_event(record: Event) -> None:
    level = logging.WARNING if record["event"] in _WARNINGS else logging.INFO
    log.log(level, "%s", json.dumps(record, default=str), extra={"runner_event": record})


def _listener_raised(error: BaseException) -> None:
    call_guarded(_log_listener, error, _print_error)


def _log_listener(error: BaseException) -> None:
    log.error("a listener of the runner's events raised", exc_info=error)


def _print_error(error: BaseException) -> None:
    """Of a handler or a filter of the log: there is no log to put it in, so it goes where ``logging`` puts its own."""
    if logging.raiseExceptions:
        with suppress(Exception):  # stderr is closed, or gone
            sys.stderr.write(f"a handler of the log {log.name} raised:\n{traceback_text(error)}")


def traceback_text(error: BaseException) -> str:
    """Where ``error`` was raised, as Python prints it; the bare places where it cannot."""
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:  # CPython 3.11.0 to 3.11.7: SystemError where another thread parses just then (gh-106905)
        places = [
            f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
        return "".join([*places, f"{in_words(error)}\n"])
