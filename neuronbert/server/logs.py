"""The server's log on stderr: a line for each request and each event of the runners, as text or as JSON."""

import asyncio
import functools
import json
import logging
import re
import sys
import threading
import time
from collections import deque
from contextlib import nullcontext, suppress
from typing import Any, Deque, Dict, Mapping, NamedTuple, Optional, Tuple, Union

log = logging.getLogger("neuronbert.server")

Facts = Mapping[str, Any]

# Of these loggers: ours, the runners' and uvicorn's.
_LOGGERS = ("neuronbert", "uvicorn")
GATHER_S = 0.01
_LEVELS = {level: logging.getLevelName(level).lower() for level in (logging.DEBUG, logging.INFO, logging.WARNING)}
# What monitors ask every few seconds: of no interest while it is well.
_OF_MONITORS = re.compile(
    r"/(health|ping|metrics|v2/health/(live|ready)|v2/models/[^/]+(/versions/[^/]+)?/(ready|stats))"
)


class Lines(logging.Formatter):
    """Each record as a line."""

    def format(self, record: logging.LogRecord) -> str:
        message, facts = _said(record)
        traceback = self.formatException(record.exc_info) if record.exc_info else None
        return self.line(record.created, record.levelname.lower(), record.name, message, facts, traceback)

    def line(
        self, at: float, level: str, logger: str, message: str, facts: Facts, traceback: Optional[str] = None
    ) -> str:
        """What was logged ``at`` this Unix time, with its facts."""
        raise NotImplementedError


class JsonLines(Lines):
    """A JSON object a line: at, level, logger, message, and the facts that it was logged with."""

    def line(
        self, at: float, level: str, logger: str, message: str, facts: Facts, traceback: Optional[str] = None
    ) -> str:
        document: Dict[str, Any] = {"at": _timestamp(at), "level": level, "logger": logger, "message": message, **facts}
        if traceback is not None:
            document["traceback"] = traceback
        return json.dumps(document, default=str)


class TextLines(Lines):
    """A line for people, with the facts behind it."""

    def line(
        self, at: float, level: str, logger: str, message: str, facts: Facts, traceback: Optional[str] = None
    ) -> str:
        shown = "".join([f" {name}={value}" for name, value in facts.items() if value is not None and name != "event"])
        text = _one_line(f"{_timestamp(at)} {level:<7} {message}{shown}".rstrip())
        return text if traceback is None else f"{text}\n{traceback}"


def _said(record: logging.LogRecord) -> Tuple[str, Facts]:
    """A record's message and facts; an event of a runner (runner/events.py) is one in words, such as "worker ready"."""
    event: Optional[Mapping[str, Any]] = getattr(record, "runner_event", None)
    if event is None:
        return record.getMessage(), getattr(record, "facts", {})
    words = str(event["event"]).replace("_", " ")
    facts = {name: value for name, value in event.items() if name != "at"}  # the record has that
    return (f"worker {words}" if "worker" in event else f"runner: {words}"), facts


def _one_line(text: str) -> str:
    """``text`` without what would begin another line or steer a terminal: a path is whatever a client likes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _timestamp(at: float) -> str:
    """UTC, in milliseconds, as RFC 3339 has it."""
    return f"{_second(int(at))}.{int(at % 1 * 1000):03d}Z"


@functools.lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s))


class GatheringHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic since Python 3.11
    """Writes what the event loop's thread logs every GATHER_S, many lines at once: a write costs as much as ten lines.

    A request's line is made then, too: one after the other costs a fifth of one by itself in the middle of other work,
    whose code and data a processor has at hand. Warnings, and what other threads log, are written at once, behind what
    was kept before.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.lines: Lines = TextLines()
        self._lines: Deque[Union[str, RequestDone]] = deque()  # as it comes, from any thread
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._loop_thread = 0
        self._timer: Optional[asyncio.TimerHandle] = None

    def gather_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, in the thread of this loop, which calls it."""
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._timer = None  # of a loop before it, which may be closed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.lines.format(record)
        except Exception:  # as of any handler
            self.handleError(record)
            return
        self._lines.append(line)
        self._keep(record.levelno)

    def emit_request(self, level: int, done: "RequestDone") -> None:
        """As ``emit`` of a record of ``log``, without one: to make it costs four times as much as its line."""
        self._lines.append(done)
        self._keep(level)

    def _keep(self, level: int) -> None:
        may_wait = level <= logging.INFO and threading.get_ident() == self._loop_thread
        if not may_wait or self._loop is None or self._loop.is_closed():
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(GATHER_S, self._flush_in_time)

    def _flush_in_time(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Write what was kept."""
        with self.lock or nullcontext():
            made = []
            with suppress(IndexError):  # none is left, maybe because what came in between logged, and flushed
                while True:
                    line = self._lines.popleft()
                    made.append(line if isinstance(line, str) else line.written(self.lines))
            try:
                if made:
                    self.stream.write("\n".join([*made, ""]))
                self.stream.flush()
            except (OSError, ValueError):  # nobody reads stderr any more
                pass


_handler = GatheringHandler()


def gather_lines(loop: asyncio.AbstractEventLoop) -> None:
    """Write the lines of this loop's thread, which calls it, many at once."""
    _handler.gather_in(loop)


def begin_logging(log_format: str) -> None:
    """Write the records of _LOGGERS to stderr in this format, "text" or "json", and others' that nobody else writes.

    Such as an exporter's of traces, and Python's warnings.
    """
    handler = _handler
    handler.setStream(sys.stderr)
    handler.lines = JsonLines() if log_format == "json" else TextLines()
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)
    # Ours say the same, with a request's id.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class RequestDone(NamedTuple):
    """A request that has its answer. ``at``: Unix time."""

    at: float
    method: str
    path: str
    status: int
    seconds: float
    request_id: str
    client: str
    model: Optional[str]
    rows: int
    error: Optional[str]

    def level(self) -> int:
        """Of its line; of a monitor's that found all well debug, which is not shown."""
        if self.status == 200 and self.method in ("GET", "HEAD") and _OF_MONITORS.fullmatch(self.path):
            return logging.DEBUG
        return logging.WARNING if self.status >= 500 else logging.INFO

    def written(self, lines: Lines) -> str:
        """Its line."""
        facts = {
            "request_id": self.request_id,
            "client": self.client,
            "model": self.model,
            "rows": self.rows or None,
            "status": self.status,
            "ms": round(self.seconds * 1000, 2),
            "error": self.error,
        }
        return lines.line(self.at, _LEVELS[self.level()], log.name, f"{self.method} {self.path}", facts)


def log_request(done: RequestDone) -> None:
    """Log a request that has its answer."""
    level = done.level()
    if log.isEnabledFor(level):
        _handler.emit_request(level, done)
