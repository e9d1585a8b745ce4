"""The server's log on stderr: a line for each request and each event of the runners, as text or as JSON."""

import json
import logging
import sys
import time
from typing import Any, Dict, Optional

log = logging.getLogger("neuronbert.server")

# Of these loggers: ours, the runners' and uvicorn's. Others' are not touched.
_LOGGERS = ("neuronbert", "uvicorn")


class JsonLines(logging.Formatter):
    """Each record as a JSON object a line: at, level, logger, message, and the facts that it was logged with."""

    def format(self, record: logging.LogRecord) -> str:
        document: Dict[str, Any] = {
            "at": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class TextLines(logging.Formatter):
    """Each record as a line for people, with its facts behind it."""

    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value}" for name, value in getattr(record, "facts", {}).items() if value is not None)
        line = f"{_timestamp(record.created)} {record.levelname.lower():<7} {record.getMessage()}"
        text = _one_line(f"{line} {facts}".rstrip())
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _one_line(text: str) -> str:
    """``text`` without what would begin another line or steer a terminal: a path is whatever a client likes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _timestamp(at: float) -> str:
    """UTC, in milliseconds, as RFC 3339 has it."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03d}Z"


def begin_logging(log_format: str) -> None:
    """Write the records of _LOGGERS to stderr in this format: "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
    # Ours say the same, with a request's id.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def log_request(
    method: str,
    path: str,
    status: int,
    seconds: float,
    *,
    request_id: str,
    client: str,
    model: Optional[str],
    rows: int,
    error: Optional[str],
) -> None:
    """A request that has its answer."""
    level = logging.WARNING if status >= 500 else logging.INFO
    if log.isEnabledFor(level):
        facts = {
            "request_id": request_id,
            "client": client,
            "model": model,
            "rows": rows or None,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "error": error,
        }
        log.log(level, "%s %s", method, path, extra={"facts": facts})
