"""What `neuronbert top` shows, as text, as JSON, and live in a real terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from neuronbert.cli import top
from neuronbert.cli.main import run
from neuronbert.errors import NeuronBertError
from neuronbert.runner.publishing import Publisher

STATS = {
    "queue": {"rows": 12, "max_rows": 1024, "predicted_wait_s": 0.25},
    "requests": {
        **dict.fromkeys(("cancelled", "poisoned", "retried"), 0),
        "submitted": 5000,
        "completed": 4321,
        "failed": 1,
        "refused": 7,
        "expired": 0,
        "deaths": 2,
        "restarts": 2,
    },
    "batches": {"full": 40},
    "rows": 4400,
    "fill": 0.987,
    "padding": 0.0321,
    "batch_service_ms": 25.0,
    "latency_ms": {"p50": 20.0, "p95": 40.5, "p99": 60.0},
    "workers": [
        {
            "worker": 0,
            "state": "ready",
            "pid": 4711,
            "cores": "NeuronCore 0",
            "in_flight": 2,
            "rows": 2200,
            "batches": 275,
            "device_s": 24.6,
            "busy_s": 12.3,
            "up_s": 60.0,
            "restarts": 2,
            "unable": None,
        },
        {
            "worker": 1,
            "state": "waiting",
            "pid": None,
            "cores": "NeuronCore 1",
            "in_flight": 0,
            "rows": 0,
            "batches": 0,
            "device_s": 0.0,
            "busy_s": 0.0,
            "up_s": 0.0,
            "restarts": 0,
            "unable": "the core is taken",
        },
    ],
}
FACTS = {"artifact": "/models/qa-artifact", "variant": "neuron-b1-s384-p1", "emulated": True, "started_at": 1000.0}


def document(**more):
    workers = [{**one, "rows_per_s": 36.5, "busy": 0.973, "batch_ms": 24.25} for one in STATS["workers"]]
    return {**STATS, **FACTS, "pid": 99, "at": 4660.0, "rows_per_s": 73.0, "workers": workers, "work": None, **more}


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_all_that_matters_is_shown():
    title, queue, requests, header, first, second = top.as_text([document()], now=4661.0).splitlines()
    assert title.startswith("/models/qa-artifact (neuron-b1-s384-p1), ")
    assert "pid 99, up 1:01:01" in title
    assert queue.startswith("queue 12 of 1,024 rows, wait 0.25 s   fill 98.7%   padding 3.2%   73.0 rows/s")
    assert "4,321 of 5,000 done, 1 failed (7 refused)" in requests
    assert "p50 20.0 ms, p95 40.5 ms, p99 60.0 ms" in requests and "2 deaths, 2 restarts" in requests
    assert header.split("  ")[0] == "worker"
    assert re.split(r"\s{2,}", first) == [
        "0",
        "ready (4711)",
        "NeuronCore 0",
        "2",
        "36.5",
        "24.2",
        "97%",
        "2,200",
        "2",
    ]
    assert "waiting: the core is taken" in second


def test_a_job_is_shown_in_its_own_unit():
    work = {"unit": "lines", "done": 1155, "total": 2024, "skipped": 2, "kept": 1024, "output": "/data/out"}
    text = top.as_text([document(work=work)], now=4661.0)
    assert "1,155 of 2,024 lines done, 1,024 kept, 2 skipped   → /data/out" in text
    assert "requests" not in text and "4,321" not in text and "batch latency p50" in text
    unknown = top.as_text([document(work={**work, "total": None, "skipped": 0})], now=4661.0)
    assert "1,155 lines done, 1,024 kept   →" in unknown


@pytest.mark.parametrize("emulated", [True, False])
def test_what_is_emulated_is_labelled(emulated):
    assert ("EMULATED" in top.as_text([document(emulated=emulated)], now=4661.0)) == emulated


def test_a_runner_that_fell_silent_is_labelled():
    assert "(silent for 60 s)" in top.as_text([document()], now=4720.0)
    assert "silent" not in top.as_text([document()], now=4661.0)


def test_before_anything_was_measured_there_are_dashes():
    workers = [{**one, "rows_per_s": None, "busy": None, "batch_ms": None} for one in STATS["workers"]]
    queue = {"rows": 0, "max_rows": 8, "predicted_wait_s": None}
    young = document(workers=workers, rows_per_s=None, fill=None, padding=None, latency_ms={}, queue=queue)
    text = top.as_text([young], now=4661.0)
    assert "wait -   fill -   padding -   - rows/s" in text and "latency -" in text and "None" not in text


def test_several_are_shown_one_after_the_other():
    text = top.as_text([document(pid=1), document(pid=2)], now=4661.0)
    assert text.index("pid 1,") < text.index("\n\n") < text.index("pid 2,")


@pytest.fixture()
def publisher():
    publisher = Publisher(FACTS, lambda: STATS)
    until = time.monotonic() + 60
    while not top.running():
        assert time.monotonic() < until
        time.sleep(0.01)
    yield publisher
    publisher.close()


def test_once_and_json(capsys, publisher):
    assert run(["top", "--once"]) == 0
    assert "EMULATED" in capsys.readouterr().out
    assert run(["top"]) == 0  # stdout is no terminal here
    assert "/models/qa-artifact" in capsys.readouterr().out
    assert run(["top", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["runners"]
    assert (shown["pid"], shown["emulated"], len(shown["workers"])) == (os.getpid(), True, 2)


def test_none_running_is_no_error(capsys):
    assert run(["top", "--once"]) == 0
    assert "no runner is running" in capsys.readouterr().out
    assert run(["top", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runners": []}


def test_without_rich_it_says_what_to_install(monkeypatch):
    # Its parts too: one that another test has imported would be found, and the view would run for ever.
    for name in ["rich", *(name for name in sys.modules if name.startswith("rich."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NeuronBertError, match="rich is not installed") as caught:
        top.watch()
    assert "neuronbert[top]" in str(caught.value.hint) and "--once" in str(caught.value.hint)


class Terminal:
    """A process on a terminal of 200 columns, and all that it wrote there."""

    def __init__(self, *arguments):
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment["TERM"] = "xterm-256color"
        command = [sys.executable, "-m", "neuronbert", *arguments]
        self.process = subprocess.Popen(
            command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
        )
        os.close(its)
        os.set_blocking(mine, False)
        self.mine, self.text = mine, ""

    def read_until(self, words: str) -> None:
        """Only what comes from now on counts."""
        until, start = time.monotonic() + 60, len(self.text)
        while words not in self.text[start:]:
            assert time.monotonic() < until and self.read() is not None, self.text
            time.sleep(0.01)

    def read(self):
        try:
            self.text += os.read(self.mine, 65536).decode("utf-8", "replace")
        except BlockingIOError:
            pass
        except OSError:  # the process has closed its end
            return None
        return self.text


def test_live_in_a_terminal():
    pytest.importorskip("rich.live")
    terminal = Terminal("top")
    try:
        terminal.read_until("waiting for one")
        publisher = Publisher(FACTS, lambda: STATS)
        terminal.read_until("/models/qa-artifact (neuron-b1-s384-p1)")
        terminal.read_until("EMULATED")
        terminal.read_until("NeuronCore 1")
        publisher.close()
        terminal.read_until("waiting for one")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 0
        while terminal.read() is not None:  # what it last wrote may come in pieces
            time.sleep(0.01)
        assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")  # the screen is back
        assert "Traceback" not in terminal.text
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.mine)
