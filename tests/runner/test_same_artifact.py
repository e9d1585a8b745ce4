"""A worker that is started again loads what the runner has: from wherever the process is by then, and nothing else."""

import os
import signal

import pytest
from echo_files import with_echo
from processes import wait_until

from neuronbert import Engine, Runner, pipeline
from neuronbert.errors import ArtifactChanged
from neuronbert.runner.dispatcher import Dispatcher

QUESTION = ("Who?", "It was me.")


def pids(runner):
    return [worker["pid"] for worker in runner.stats()["workers"] if worker["state"] == "ready"]


def kill_one(runner):
    pid = pids(runner)[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in pids(runner))


@pytest.fixture()
def relative(echo_copy, tmp_path, monkeypatch):
    """The artifact's path from its parent folder, in which this process is."""
    monkeypatch.chdir(echo_copy.parent)
    (tmp_path / "elsewhere").mkdir()
    return echo_copy.name


def test_a_worker_comes_back_after_chdir(relative, monkeypatch):
    with Runner(relative, workers=1) as runner:
        monkeypatch.chdir("elsewhere")
        kill_one(runner)
        assert runner.submit(*QUESTION).result(60)


def test_an_engine_loads_its_second_session_after_chdir(relative, monkeypatch):
    with Engine(relative, threads=4) as engine:
        monkeypatch.chdir("elsewhere")
        assert len(engine.answer([QUESTION] * 500)) == 500
        assert engine._fastest is not None


def test_a_pipeline_answers_after_chdir(relative, monkeypatch):
    qa = pipeline("question-answering", model=relative, threads=4)
    monkeypatch.chdir("elsewhere")
    assert len(qa(question=["Who?"] * 500, context="It was me.")) == 500
    qa.model.close()


def test_a_runner_whose_artifact_was_replaced_says_so_and_stops_trying(echo_copy):
    with Runner(echo_copy, workers=1) as runner:
        with_echo(echo_copy, batch_s=0.01)
        kill_one(runner)
        with pytest.raises(ArtifactChanged, match="holds another artifact than before"):
            runner.submit(*QUESTION).result(60)
        with pytest.raises(ArtifactChanged):
            wait_until(lambda: runner._dispatcher.unable)
            runner.submit(*QUESTION)
        (worker,) = runner.stats()["workers"]
        assert (worker["state"], worker["restarts"]) == ("stopped", 1)
        assert "another artifact" in worker["unable"]
        assert [event["restart_in_s"] for event in runner.events if event["event"] == "unable"] == [None]


def test_what_is_let_in_just_when_the_last_worker_gives_up_has_an_outcome(echo_copy, monkeypatch):
    with Runner(echo_copy, workers=1) as runner:
        with_echo(echo_copy, batch_s=0.01)
        kill_one(runner)
        wait_until(lambda: runner._dispatcher.unable)
        monkeypatch.setattr(Dispatcher, "unable", None)  # as it looked a moment ago
        assert isinstance(runner.submit(*QUESTION).exception(30), ArtifactChanged)
        (error,) = runner.map([QUESTION], on_error="yield")
        assert isinstance(error, ArtifactChanged)


def test_the_other_workers_go_on(echo_copy):
    with Runner(echo_copy, workers=2) as runner:
        wanted = runner.submit(*QUESTION).result(60)
        with_echo(echo_copy, batch_s=0.01)
        kill_one(runner)
        wait_until(lambda: [worker for worker in runner.stats()["workers"] if worker["state"] == "stopped"])
        assert [runner.submit(*QUESTION).result(60) for _ in range(20)] == [wanted] * 20


def test_an_engine_never_mixes_two_artifacts(echo_copy):
    with Engine(echo_copy, threads=4) as engine:
        with_echo(echo_copy, batch_s=0.01)
        with pytest.raises(ArtifactChanged):
            engine.answer([QUESTION] * 500)
        assert engine.answer([QUESTION])  # what is loaded is loaded
