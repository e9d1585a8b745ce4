"""Watches this user's runners in the terminal, as tables of what each publishes (runner/publishing.py)."""

import sys
import time
from typing import Callable, List, NamedTuple, Optional, TextIO

from neuronbert.cli.progress import harmless
from neuronbert.cli.tables import table
from neuronbert.hardware.libraries import optional_imports
from neuronbert.runner.documents import PublishedRunner, PublishedWorker, Work
from neuronbert.runner.publishing import INTERVAL_S, published

NOTHING = "no runner is running: neuronbert run ARTIFACT ..., or Runner(..., publish=True)"
HEADER = ("worker", "state", "cores", "in flight", "rows/s", "batch ms", "busy", "rows", "restarts")
STALE_S = 5.0  # a runner that is alive writes ten times in this


class Description(NamedTuple):
    """One runner in words: its facts in a few lines, and a row of ``HEADER`` for each worker."""

    title: str
    facts: List[str]
    workers: List[List[str]]


def running() -> List[PublishedRunner]:
    """What every runner of this user last published: facts, rates and what ``Runner.stats`` gives."""
    return published()


def as_text(runners: List[PublishedRunner], now: float) -> str:
    """All of them as plain text; ``now`` is Unix time in seconds."""
    return "\n\n".join(_block(describe(runner, now)) for runner in runners) or NOTHING


def _block(runner: Description) -> str:
    return "\n".join([runner.title, *runner.facts, table(runner.workers, HEADER)])


def describe(runner: PublishedRunner, now: float) -> Description:
    """One published document in words; ``now`` is Unix time in seconds."""
    emulated = "  EMULATED: no figure here is of the hardware" if runner["emulated"] else ""
    silent_s = now - runner["at"]
    stale = f"  (silent for {silent_s:.0f} s)" if silent_s > STALE_S else ""
    counts, queue, latency, work = runner["requests"], runner["queue"], runner["latency_ms"], runner["work"]
    trouble = ", ".join(f"{counts[name]:,} {name}" for name in ("refused", "expired", "poisoned") if counts[name])
    return Description(
        title=f"{runner['artifact']} ({runner['variant']}){_process(runner)}, "
        f"up {_duration(now - runner['started_at'])}{emulated}{stale}",
        facts=[
            f"queue {queue['rows']:,} of {queue['max_rows']:,} rows, wait {_seconds(queue['predicted_wait_s'])}   "
            f"fill {_share(runner['fill'])}   padding {_share(runner['padding'])}   "
            f"{_rate(runner['rows_per_s'])} rows/s",
            *([] if work is None else [_work(work)]),
            # Those of a job are its batches, which mean nothing to a person.
            ("" if work else f"requests {counts['completed']:,} of {counts['submitted']:,} done, ")
            + f"{counts['failed']:,} {'batches ' if work else ''}failed"
            + (f" ({trouble})" if trouble else "")
            + f"   {'batch ' if work else ''}latency "
            + (", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()) or "-")
            + f"   {counts['deaths']:,} deaths, {counts['restarts']:,} restarts",
        ],
        workers=[_worker_row(worker) for worker in runner["workers"]],
    )


def _process(runner: PublishedRunner) -> str:
    """Its process, where that is on this machine."""
    return "" if runner["pid"] is None else f", pid {runner['pid']}"


def _work(work: Work) -> str:
    """How far a job is, in the words and numbers of its own progress."""
    of_all = "" if work["total"] is None else f" of {work['total']:,}"
    skipped = f", {work['skipped']:,} skipped" if work["skipped"] else ""
    return f"{work['done']:,}{of_all} {work['unit']} done, {work['kept']:,} kept{skipped}   → {work['output']}"


def _worker_row(worker: PublishedWorker) -> List[str]:
    state = worker["state"] + (f": {worker['unable']}" if worker["unable"] else "")
    return [
        str(worker["worker"]),
        f"{state} ({worker['pid']})" if worker["pid"] else state,
        worker["cores"],
        str(worker["in_flight"]),
        _rate(worker["rows_per_s"]),
        "-" if worker["batch_ms"] is None else f"{worker['batch_ms']:.1f}",
        "-" if worker["busy"] is None else f"{worker['busy']:.0%}",
        f"{worker['rows']:,}",
        str(worker["restarts"]),
    ]


def _rate(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _share(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def watch(read: Callable[[], List[PublishedRunner]] = running, stdout: Optional[TextIO] = None) -> None:
    """Show the runners that ``read`` finds live until Ctrl-C. NeuronBertError without the library that draws."""
    with optional_imports(otherwise="neuronbert top --once"):
        from rich.console import Console, Group, RenderableType
        from rich.live import Live
        from rich.table import Table
        from rich.text import Text

    def drawn() -> Group:
        parts: List[RenderableType] = []
        for runner in read():
            described = describe(runner, time.time())
            rows = Table(*HEADER, box=None, padding=(0, 2, 0, 0), header_style="bold")
            for row in described.workers:
                rows.add_row(*(Text(harmless(cell)) for cell in row))
            heading = Text(harmless(described.title), style="bold yellow" if runner["emulated"] else "bold")
            parts += [heading, *(Text(harmless(fact)) for fact in described.facts), rows, Text()]
        return Group(*(parts or [Text(NOTHING + "; waiting for one")]), Text("Ctrl-C leaves", style="dim"))

    console = Console(file=stdout or sys.stdout)
    with Live(drawn(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(INTERVAL_S)
            live.update(drawn(), refresh=True)
