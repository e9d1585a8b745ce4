"""What happened to the workers, as structured events: kept, logged, and handed to whoever asked."""

import json
import logging
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Optional

Listener = Callable[[Dict[str, Any]], None]

log = logging.getLogger("neuronbert.runner")
KEPT = 1000
# Those that somebody should look at.
_WARNINGS = frozenset({"died", "unable", "poison", "batch_failed"})


class Events:
    """The last events, oldest first: dictionaries with ``event``, ``at`` (Unix time in seconds) and the facts."""

    def __init__(self, listener: Optional[Listener] = None):
        self._kept: Deque[Dict[str, Any]] = deque(maxlen=KEPT)
        self._listener = listener

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        return iter(list(self._kept))

    def happened(self, event: str, **facts: Any) -> None:
        """Record one. What a listener raises is logged and goes no further."""
        record = {"event": event, "at": time.time(), **facts}
        self._kept.append(record)
        log.log(logging.WARNING if event in _WARNINGS else logging.INFO, "%s", json.dumps(record, default=str))
        if self._listener is not None:
            try:
                self._listener(record)
            except Exception:
                log.exception("a listener of the runner's events raised")
