"""What tools/measure_neighbours makes of its samples: shares of the speed alone, and whether the bars hold."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuronbert_tools import measure_neighbours
from neuronbert_tools.measure_neighbours import Options, beside_neighbours, parse, rows_of, started
from neuronbert_tools.neighbours import WORK, busy_neighbours

OPTIONS = Options(None, ["compile"], 1, 1, 10, 3, "demo", None, 2, None)


def report(alone: float, beside_one: float, beside_two: float) -> dict:
    seconds = {0: [alone], 1: [beside_one], 2: [beside_two]}
    return {"compile": {"seconds": seconds, "shares": {1: alone / beside_one, 2: alone / beside_two}}}


@pytest.mark.parametrize(
    ("beside_one", "beside_two", "verdicts"),
    [(25.0, 40.0, ["ok", "ok"]), (25.1, 40.0, ["MISSED", "ok"]), (25.0, 40.1, ["ok", "MISSED"])],
)
def test_a_share_of_the_speed_alone_is_left(beside_one, beside_two, verdicts):
    assert [row[-1] for row in rows_of(report(10.0, beside_one, beside_two), OPTIONS)] == verdicts


def test_the_other_bars():
    figures = {"pair": {"alone_s": 10.0, "together_s": 25.1, "ratio": 2.51}, "memory": {"resident_mb": [500, 560, 599]}}
    rows = rows_of(figures, OPTIONS)
    assert [(row[1], row[-1]) for row in rows] == [("2.51 x", "MISSED"), ("99 MB", "ok")]
    figures = {"pair": {"alone_s": 10.0, "together_s": 25.0, "ratio": 2.5}, "memory": {"resident_mb": [500, 600]}}
    assert [row[-1] for row in rows_of(figures, OPTIONS)] == ["ok", "MISSED"]


@pytest.mark.parametrize(("seconds", "verdict"), [(16.9, "ok"), (17.0, "MISSED")])
def test_a_compile_alone_against_the_baseline(seconds, verdict):
    rows = rows_of(report(seconds, seconds, seconds), OPTIONS._replace(baseline_s=17.0))
    assert rows[-1][-1] == verdict


def test_samples_are_taken_in_turns(monkeypatch):
    counts = []
    plain = measure_neighbours.busy_neighbours
    monkeypatch.setattr(measure_neighbours, "busy_neighbours", lambda count: counts.append(count) or plain(0))
    figures = beside_neighbours("compile", iter([1.0, 2.0, 4.0, 1.0, 2.0, 4.0]).__next__, rounds=2)
    assert counts == [0, 1, 2, 0, 1, 2]
    assert figures["shares"] == {1: 0.5, 2: 0.25}


def test_what_needs_an_artifact_asks_for_it(capsys):
    with pytest.raises(SystemExit):
        parse(["--parts", "run"])
    assert "need an artifact" in capsys.readouterr().err
    assert parse(["--parts", "memory"]).parts == ["memory"]


@pytest.mark.parametrize("kind", sorted(WORK))
def test_a_neighbour_is_busy_and_gone_afterwards(kind):
    with busy_neighbours(1, (kind,)) as (pid,):
        deadline = time.monotonic() + 120
        while cpu_ticks(pid) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_neighbour_ends_with_its_parent():
    code = "import sys; sys.path[:] = sys.argv[1:]\n"
    code += "from neuronbert_tools.neighbours import busy_neighbours\n"
    code += "with busy_neighbours(1) as (pid,): print(pid, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, *filter(os.path.isabs, sys.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 120
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():  # nobody may reap it
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_compiles_in_one_process_report_their_memory(tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(measure_neighbours, "compile_checkpoint", lambda _, output, **__: Path(output).mkdir())
    assert measure_neighbours.main([measure_neighbours.COMPILES, "3", str(tiny_checkpoint)]) == 0
    printed = [float(line) for line in capsys.readouterr().out.split()]
    assert len(printed) == 3
    assert all(10 < megabytes < 100_000 for megabytes in printed)


def test_what_is_measured_ends_with_the_measurement():
    with pytest.raises(KeyboardInterrupt):
        with started([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            raise KeyboardInterrupt
    assert process.returncode == -signal.SIGTERM
