"""Lets `neuronbert top` watch: a runner that was asked to keeps a small file up to date in its user's own folder."""

import itertools
import json
import os
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Callable, Deque, List, Mapping, Optional, cast

from neuronbert.errors import InputError, in_words
from neuronbert.hardware.machine import process_fields
from neuronbert.hardware.own_places import fault_of_folder, open_own, own_folder, own_temporary_folder
from neuronbert.hardware.schema import Schema, form_of, record, whole
from neuronbert.hardware.untrusted import Refusal, read_document
from neuronbert.runner.counters import COUNTS
from neuronbert.runner.documents import PublishedRunner, PublishedWorker, Rates, Reading, RunnerStatistics, Work
from neuronbert.runner.events import log

INTERVAL_S = 0.5
RATES_OVER = 10  # intervals: rates are means over the last 5 s

_REFUSAL = Refusal(InputError, "neuronbert top")
_PROCESS = Schema(**record({"pid": whole(1, 2**31 - 1), "process_started": whole(0, 2**63, "null")}))
_PUBLISHED = Schema(
    allOf=[form_of(PublishedRunner), record({"requests": record(dict.fromkeys(COUNTS, {"type": "integer"}))})]
)

_numbers = itertools.count(1)


def runtime_folder() -> Path:
    """Where this user's runners publish; it need not be there yet."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return Path(base, "neuronbert")
    return own_temporary_folder("neuronbert")


class Publisher:
    """Writes what ``stats`` gives, with ``facts`` and rates, twice a second until it is closed.

    If the folder cannot be written to, or ``work`` raises, that is logged once, and the runner goes on.
    """

    def __init__(
        self,
        facts: Mapping[str, object],
        stats: Callable[[], RunnerStatistics],
        work: Optional[Callable[[], Work]] = None,
    ):
        self._facts = {"pid": os.getpid(), "process_started": process_started(os.getpid()), **facts}
        self._stats = stats
        self._work = work
        self._since: Deque[Reading] = deque(maxlen=RATES_OVER + 1)
        self._closed = threading.Event()
        self._path: Optional[Path] = None
        self._thread = threading.Thread(target=self._run, name="neuronbert-publisher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the file."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._path = own_folder(runtime_folder()) / f"{os.getpid()}-{next(_numbers)}.json"
            while True:
                self._write(self._path)
                if self._closed.wait(INTERVAL_S):
                    break
        except Exception as error:  # ``work`` is the user's
            log.warning("neuronbert top cannot watch this runner: %s", in_words(error))
        finally:
            for path in self._files():
                with suppress(OSError):
                    path.unlink()

    def _files(self) -> List[Path]:
        return [] if self._path is None else [self._path, _new(self._path)]

    def _write(self, path: Path) -> None:
        at, stats = time.time(), self._stats()
        reading: Reading = {"at": at, "workers": stats["workers"]}
        self._since.append(reading)
        work = None if self._work is None else self._work()
        text = json.dumps({"at": at, **self._facts, **stats, **rates(self._since[0], reading), "work": work})
        with open(open_own(_new(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(_new(path), path)


def _new(path: Path) -> Path:
    return path.with_suffix(".new")


def rates(before: Reading, now: Reading) -> Rates:
    """What happened between two readings: ``rows_per_s`` of all, and each worker with its rate, load and batch time.

    ``rows_per_s`` is None, as are the workers' and their ``busy``, between a reading and itself; ``batch_ms``, the mean
    time of a batch on the device, is None where there was none.
    """
    seconds = now["at"] - before["at"]
    workers: List[PublishedWorker] = []
    for old, new in zip(before["workers"], now["workers"]):
        batches = new["batches"] - old["batches"]
        workers.append(
            {
                **new,
                "rows_per_s": (new["rows"] - old["rows"]) / seconds if seconds > 0 else None,
                "busy": min(1.0, (new["busy_s"] - old["busy_s"]) / seconds) if seconds > 0 else None,
                "batch_ms": (new["device_s"] - old["device_s"]) / batches * 1000 if batches > 0 else None,
            }
        )
    measured = [worker["rows_per_s"] for worker in workers if worker["rows_per_s"] is not None]
    return {"rows_per_s": sum(measured) if len(measured) == len(workers) else None, "workers": workers}


def published() -> List[PublishedRunner]:
    """What this user's living runners last wrote, oldest first; files of processes that are gone are removed."""
    runners: List[PublishedRunner] = []
    folder = runtime_folder()
    if not os.path.lexists(folder) or fault_of_folder(folder):
        return runners
    for path in folder.glob("*.json"):
        try:
            document = read_document(path, _PROCESS, _REFUSAL, links=False)
        except (FileNotFoundError, InputError):
            continue  # it went while we looked, or is no runner's
        if process_started(document["pid"]) != document["process_started"] or not _is_alive(document["pid"]):
            for gone in (path, _new(path)):
                with suppress(OSError):
                    gone.unlink()
        elif _PUBLISHED.fault(document) is None:  # a runner of another release may say other things
            runners.append(cast(PublishedRunner, document))
    return sorted(runners, key=lambda runner: (runner["started_at"], runner["pid"]))


def process_started(pid: int) -> Optional[int]:
    """When a process was started, in the kernel's ticks since boot: with it a pid that was used again is told apart.

    None where there is no such process, or no /proc (proc(5): field 22, counted behind the name in parentheses).
    """
    try:
        return int(process_fields(pid)[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
