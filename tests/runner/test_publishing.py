"""What a runner publishes: its own file, in a folder of its user's own, gone when the runner is gone."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from echo_files import with_echo

from neuronbert import Runner, run_job
from neuronbert.backends import echo
from neuronbert.hardware.own_places import own_folder
from neuronbert.runner import publishing
from neuronbert.runner.counters import Statistics
from neuronbert.runner.publishing import Publisher, process_started, published, rates, runtime_folder
from neuronbert.tasks.question_answering.lines import question_line

FACTS = {"artifact": "somewhere", "variant": "echo-fp32", "emulated": False, "started_at": 0.0}


def worker(**more):
    return {"worker": 0, "state": "ready", "pid": 1, "cores": "", "in_flight": 0, "rows": 10, "batches": 2,
            "device_s": 1.0, "busy_s": 1.0, "up_s": 2.0, "restarts": 0, "unable": None, **more}  # fmt: skip


def statistics(*workers):
    return {**Statistics(max_queue=8).snapshot(), "workers": list(workers)}


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "neuronbert"


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def write(folder: Path, name: str, **document):
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**FACTS, **document}))
    return path


def test_the_folder_is_the_user_s_own(runtime, tmp_path, monkeypatch):
    assert own_folder(runtime_folder()) == runtime
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert own_folder(runtime_folder()) == tmp_path / f"neuronbert-{os.getuid()}"


def test_a_runtime_folder_that_is_not_there_is_not_used(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/at/all")
    assert runtime_folder().name == f"neuronbert-{os.getuid()}"


@pytest.mark.parametrize("kind", ["open to all", "link", "file"])
def test_a_folder_that_others_could_write_to_is_neither_used_nor_read(runtime, tmp_path, kind, caplog):
    (tmp_path / "other").mkdir(mode=0o700)
    if kind == "open to all":
        runtime.mkdir()
        runtime.chmod(0o777)
        write(runtime, "1", pid=os.getpid(), process_started=process_started(os.getpid()))
    elif kind == "link":
        runtime.symlink_to(tmp_path / "other")
    else:
        runtime.write_text("")
    publisher = Publisher(FACTS, lambda: {"workers": []})
    publisher.close()
    assert "cannot watch this runner" in caplog.text
    assert published() == []


def test_it_is_there_while_it_runs_and_gone_afterwards(runtime):
    first, second = (Publisher({**FACTS, "started_at": at}, lambda: statistics(worker())) for at in (2.0, 1.0))
    wait_for(lambda: len(published()) == 2)
    older, newer = published()
    assert (older["started_at"], newer["started_at"], newer["pid"]) == (1.0, 2.0, os.getpid())
    before = newer["at"]
    wait_for(lambda: published()[1]["at"] > before)
    assert published()[1]["workers"][0]["rows_per_s"] == 0.0
    second.close()
    assert len(published()) == 1
    first.close()
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("work", [lambda: 1 / 0, lambda: {"unit": {"a", "set"}}], ids=["raises", "no JSON"])
def test_a_work_that_fails_is_logged_and_leaves_no_file(runtime, work, caplog):
    publisher = Publisher(FACTS, lambda: statistics(worker()), work)
    publisher._thread.join(30.0)
    assert not publisher._thread.is_alive()
    assert "cannot watch this runner" in caplog.text and "Error: " in caplog.text
    assert list(runtime.iterdir()) == []
    publisher.close()


def test_rates_are_of_the_time_between():
    before = {"at": 10.0, "workers": [worker(), worker(worker=1)]}
    now = {"at": 12.0, "workers": [worker(rows=30, batches=6, device_s=1.5, busy_s=1.25), worker(worker=1)]}
    found = rates(before, now)
    assert found["rows_per_s"] == 10.0
    assert [worker["rows_per_s"] for worker in found["workers"]] == [10.0, 0.0]
    assert [worker["batch_ms"] for worker in found["workers"]] == [125.0, None]
    assert [worker["busy"] for worker in found["workers"]] == [0.125, 0.0]
    assert rates(now, now)["rows_per_s"] is None and rates(now, now)["workers"][0]["busy"] is None


@pytest.mark.parametrize("in_workers", [False, True], ids=["batches", "blocks"])
def test_what_top_shows_of_a_job_is_what_the_job_says(echo_copy, tmp_path, monkeypatch, in_workers):
    """Read while it runs, on a worker with two batches at once: the same lines, and no second counted twice."""
    monkeypatch.setattr(publishing, "INTERVAL_S", 0.02)
    monkeypatch.setattr(echo, "HOST_BOUND", in_workers)
    artifact = with_echo(echo_copy, batch_s=0.05)
    lines = [question_line(f"What is {number}?", "Jim Henson. " * (1 + number % 40)) for number in range(150)]
    (tmp_path / "lines").write_text("\n".join([*lines, "{"]) + "\n")
    told, shown, over = [], [], threading.Event()

    def look():
        while not over.wait(0.01):
            shown.extend(published())

    def tell(*counts):
        told.append(counts)
        if counts == (151, 151):  # the end is seen, too
            wait_for(lambda: shown and shown[-1]["work"]["done"] == 151)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        report = run_job(
            artifact,
            tmp_path / "lines",
            tmp_path / "out",
            threads=2,
            on_error="skip",
            progress=tell,
        )
    finally:
        over.set()
        watcher.join()
    assert report.lines == 151 and told[-1] == (151, 151)
    works = [one["work"] for one in shown]
    assert len({work["done"] for work in works}) > 5
    # Before the workers are loaded nothing was told yet.
    assert {(work["done"], work["total"]) for work in works} <= {(0, 151), *told}
    assert all(work["kept"] <= work["done"] and work["output"] == str(tmp_path / "out") for work in works)
    workers = [worker for one in shown for worker in one["workers"]]
    assert max(worker["device_s"] - worker["up_s"] for worker in workers) > 0  # batches do overlap
    assert all(worker["busy_s"] <= worker["up_s"] for worker in workers)
    assert max(worker["busy"] or 0.0 for worker in workers) > 0.5
    assert shown[-1]["rows"] >= 100


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_processes_that_are_gone_are_cleared_away(runtime):
    with subprocess.Popen(["true"]) as gone:
        started = process_started(gone.pid)
    dead = write(runtime, "dead", pid=gone.pid, process_started=started)
    reused = write(runtime, "reused", pid=os.getpid(), process_started=1)
    junk = write(runtime, "junk")
    assert published() == []
    assert not dead.exists() and not reused.exists() and junk.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"started_at": "soon"},
        {"requests": {}},
        {"latency_ms": {"p50": None}},
        {"workers": [{}]},
        {"work": 3},
        {"queue": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_runner_of_another_release_says_is_passed_over(runtime, changes):
    now = {"at": 1.0, **statistics(worker()), "workers": []}
    said = {**now, **rates({"at": 0.0, "workers": []}, {"at": 1.0, "workers": []}), "work": None}
    process = {"pid": os.getpid(), "process_started": process_started(os.getpid())}
    write(runtime, "good", **process, **said)
    write(runtime, "other", **process, **{**said, **changes})
    os.mkfifo(runtime / "pipe.json")
    assert len(published()) == 1 and (runtime / "other.json").exists()


def test_a_process_starts_once():
    assert process_started(os.getpid()) == process_started(os.getpid())
    assert process_started(2**30) is None


def test_only_a_runner_that_was_asked_publishes(echo_artifact, runtime):
    with Runner(echo_artifact):
        assert published() == []
    with Runner(echo_artifact, publish=True) as runner:
        wait_for(lambda: published())
        assert runner.submit("Who?", "Jim Henson.").result()
        wait_for(lambda: published()[0]["requests"]["completed"] == 1)
        (seen,) = published()
        assert seen["artifact"] == str(echo_artifact.folder) and seen["variant"] == "echo-fp32"
        assert seen["emulated"] is False
        assert [(worker["state"], worker["batches"], worker["rows"]) for worker in seen["workers"]] == [("ready", 1, 1)]
    assert published() == []


def test_a_killed_runner_is_not_shown(echo_artifact, runtime):
    code = "import sys, time; from neuronbert import Runner\nwith Runner(sys.argv[1], publish=True): time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(echo_artifact.folder)]) as process:
        wait_for(lambda: published())
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert published() == []
    assert list(runtime.iterdir()) == []


def test_a_disk_that_is_full_does_not_stop_the_runner(echo_artifact, runtime, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing.os, "replace", full)
    with Runner(echo_artifact, publish=True) as runner:
        wait_for(lambda: "No space left" in caplog.text)
        assert runner.submit("Who?", "Jim Henson.").result()
    assert list(runtime.iterdir()) == []
