"""Workers that die, hang and fail: nothing accepted is lost, and the request at fault is told apart."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from functools import partial

import losing_worker
import pytest
from echo_files import with_echo
from processes import is_running, stopped, wait_until

from neuronbert import Runner
from neuronbert.backends.child import start_child
from neuronbert.errors import ArtifactError, BackendFailed, Overloaded, PoisonRequest
from neuronbert.runner import supervision
from neuronbert.runner.blocks import Block, Rules
from neuronbert.runner.requests import Prepared, now_s
from neuronbert.runner.supervision import FAULTS
from neuronbert.runner.suspicion import MAX_DEATHS, Doer
from neuronbert.tasks.base import option_kinds, options_of
from neuronbert.tasks.lines import json_entries
from neuronbert.tasks.question_answering.lines import question_line


def pids(runner):
    return [worker["pid"] for worker in runner.stats()["workers"] if worker["state"] == "ready"]


def events(runner, name):
    return [event for event in runner.events if event["event"] == name]


def test_a_killed_worker_is_replaced_and_loses_nothing(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=2) as runner:
        first = pids(runner)
        results = runner.map(texts * 5)
        found = [next(results) for _ in range(20)]
        os.kill(first[0], signal.SIGKILL)
        found += list(results)
        assert found == expected * 5
        wait_until(lambda: len(pids(runner)) == 2)
        assert set(pids(runner)) != set(first)
        died = events(runner, "died")
        assert [event["cause"] for event in died] == ["died of SIGKILL: killed from outside"]
        assert runner.stats()["requests"]["restarts"] == 1


def test_the_last_workers_death_is_not_the_runners(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=1) as runner:
        for _ in range(3):
            os.kill(wait_until(lambda: pids(runner))[0], signal.SIGKILL)
            assert runner.submit(*texts[0]).result(60) == expected[0]


def test_a_worker_that_loses_its_device_ends_and_its_successor_answers(
    echo_artifact, texts, expected, tmp_path, monkeypatch
):
    def start_losing(module, *arguments, **settings):
        return start_child("losing_worker", *arguments, **settings)

    monkeypatch.setenv(losing_worker.MARKER, str(tmp_path / "lost"))
    monkeypatch.setattr(supervision, "start_child", start_losing)
    with Runner(echo_artifact, workers=1) as runner:
        first = pids(runner)
        assert list(runner.map(texts[:40])) == expected[:40]
        assert pids(runner) != first
        assert [event["cause"] for event in events(runner, "died")] == ["exited with code 1"]
        assert runner.stats()["requests"]["deaths"] == 1


@pytest.mark.parametrize(("word", "cause"), [("dynamite", "exited with code 9"), ("torpedo", "died of SIGABRT")])
def test_poison_is_refused_after_two_workers_that_held_nothing_else(faulty_artifact, texts, expected, word, cause):
    with Runner(faulty_artifact, workers=2) as runner:
        good = [runner.submit(*pair) for pair in texts[:40]]
        poison = runner.submit(f"Where is the {word}?", "It is in the box.")
        more = [runner.submit(*pair) for pair in texts[40:80]]
        with pytest.raises(PoisonRequest, match=r"request \d+ was with [23] workers when they died"):
            poison.result(60)
        assert [future.result(60) for future in good + more] == expected[:80]
        died = events(runner, "died")
        assert {event["cause"] for event in died} == {cause}
        # With the first it may not have been alone; from then on it is.
        assert runner.stats()["requests"]["deaths"] == len(died) in (2, 3)
        assert all(len(event["held"]) == 1 for event in died[1:])


def test_what_dies_as_if_killed_from_outside_ends_too_and_keeps_nobody_waiting(
    faulty_artifact, texts, expected, monkeypatch
):
    monkeypatch.setitem(MAX_DEATHS, Doer.ANYBODY, 4)
    with Runner(faulty_artifact, workers=2) as runner:
        poison = runner.submit("Where is the assassin?", "In the box.")
        assert list(runner.map(texts)) == expected
        assert isinstance(poison.exception(60), PoisonRequest)
        assert runner.stats()["requests"]["deaths"] in (4, 5)  # the first may have held others too


@pytest.fixture()
def slow_artifact(echo_copy):
    """Every batch takes 0.1 s."""
    return with_echo(echo_copy, batch_s=0.1)


def kill_one(runner):
    os.kill(pids(runner)[0], signal.SIGKILL)


def test_one_workers_death_counts_once_for_a_document_with_several_batches_in_it(slow_artifact):
    document = ("What is it?", " ".join(f"word{number}" for number in range(4000)))
    with Runner(slow_artifact, workers=1, threads=2) as runner:
        with stopped(runner):
            future = runner.submit(*document)
            wait_until(lambda: runner.stats()["workers"][0]["in_flight"] == 3)
            kill_one(runner)
        assert future.result(60)["answer"]
        assert runner.stats()["requests"]["retried"] == 1


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])  # ignored, no exit code says what happened
def test_a_request_whose_worker_is_killed_again_and_again_is_not_to_blame(echo_copy, request, handler):
    request.addfinalizer(partial(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, handler)))
    with Runner(with_echo(echo_copy, batch_s=2), workers=1) as runner:  # time to be killed in
        future = runner.submit("Who?", "It was me.")
        for killed in range(4):
            wait_until(lambda: pids(runner) and runner.stats()["workers"][0]["in_flight"])
            kill_one(runner)
            wait_until(lambda killed=killed: runner.stats()["requests"]["deaths"] > killed)
        assert future.result(60)["answer"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_sent_from_outside_does_not_reach_a_worker(slow_artifact, fault):
    with Runner(slow_artifact, workers=1, max_queue=8) as runner:
        with Flood(runner) as flood:
            for _ in range(2):
                wait_until(lambda: runner.stats()["workers"][0]["in_flight"])
                os.kill(pids(runner)[0], fault)
        assert all(future.result(60)["answer"] for future in flood.asked)
        assert events(runner, "died") == []


class Flood:
    """Two threads that ask without a pause, and ask again where they are refused."""

    def __init__(self, runner):
        self.runner, self.asked = runner, []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self):
        while not self._ending.is_set():
            try:
                self.asked.append(self.runner.submit("Who?", "It was me."))
            except Overloaded:
                time.sleep(0.001)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        for thread in self._threads:
            thread.join()


def let_in(runner, *asked):
    """The future of what is asked, however often it is refused before."""

    def submitted():
        with suppress(Overloaded):
            return runner.submit(*asked)

    return wait_until(submitted)


def test_what_a_dead_worker_held_does_not_wait_for_a_flood_to_end(slow_artifact):
    with Runner(slow_artifact, workers=1, max_queue=64) as runner, Flood(runner) as flood:
        wait_until(lambda: runner.stats()["requests"]["completed"] > 20)
        kill_one(runner)
        wait_until(lambda: runner.stats()["requests"]["retried"])
        before = len(flood.asked)
        held = [future for future in flood.asked[:before] if not future.done()]
        assert all(future.result(60) for future in held)
        assert runner.stats()["batches"]["suspect"]
        assert any(not future.done() for future in flood.asked[before:])  # it has not ended


def test_a_flood_keeps_no_document_out(slow_artifact):
    document = ("What is it?", " ".join(f"word{number}" for number in range(2500)))
    with Runner(slow_artifact, workers=2, max_queue=32, max_windows_per_request=32) as runner, Flood(runner):
        assert all(answer["answer"] for answer in runner.map([document] * 3))
        assert let_in(runner, *document).result(60)["answer"]


def test_what_comes_in_late_finds_a_worker_though_the_last_one_died_while_closing(faulty_artifact):
    late = []

    def come_late(event):
        if event["event"] == "poison":
            requests = runner._requests.of_call(now_s(), [("Who?", "It was me.")], {}, False)
            late.extend(runner._admission.admit(Prepared(requests)))  # it was past the door when that was closed

    runner = Runner(faulty_artifact, workers=1, on_event=come_late, drain_timeout_s=600)
    poison = runner.submit("Where is the dynamite?", "It is in the box.")
    runner.close()
    assert isinstance(poison.exception(0), PoisonRequest)
    assert late[0].result(0)["answer"]


def test_map_names_the_input_that_is_poison(faulty_artifact, texts, expected):
    pairs = [texts[0], ("Where is the dynamite?", "It is in the box."), texts[1]]
    with Runner(faulty_artifact, workers=1) as runner:
        found = list(runner.map(pairs, on_error="yield"))
        assert [found[0], found[2]] == expected[:2]
        assert isinstance(found[1], PoisonRequest) and found[1].message.startswith("inputs[1]: request ")


def test_a_batch_that_raises_fails_for_the_one_at_fault_only(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=1, max_wait_ms=50) as runner:
        good = [runner.submit(*pair) for pair in texts[:20]]
        bad = runner.submit("Do you refuse?", "It is in the box.")
        more = [runner.submit(*pair) for pair in texts[20:40]]
        with pytest.raises(BackendFailed, match="told to fail"):
            bad.result(60)
        assert [future.result(60) for future in good + more] == expected[:40]


def test_a_hanging_worker_is_replaced(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=2, hang_timeout_s=1.0) as runner:
        hanging = runner.submit("Is it a glacier?", "It is in the box.")
        good = [runner.submit(*pair) for pair in texts[:20]]
        assert [future.result(60) for future in good] == expected[:20]
        with pytest.raises(PoisonRequest):
            hanging.result(60)
        assert {event["cause"] for event in events(runner, "died")} == {"hung, and was killed by the runner"}


def test_a_batch_that_hangs_beside_others_that_do_not_is_found(faulty_artifact):
    with Runner(faulty_artifact, workers=1, threads=2, hang_timeout_s=1.0, max_queue=64) as runner, Flood(runner):
        hanging = let_in(runner, "Is it a glacier?", "It is in the box.")
        assert isinstance(hanging.exception(60), PoisonRequest)


def test_a_callback_that_takes_longer_than_a_hang_is_no_workers_fault(slow_artifact):
    with Runner(slow_artifact, workers=2, hang_timeout_s=2.0, batch_size=1) as runner:
        asked = [runner.submit("Who?", "It was me.") for _ in range(24)]
        asked[12].add_done_callback(lambda _: time.sleep(4))
        assert all(future.result(60) for future in asked)
        assert not events(runner, "died")


def test_a_block_may_take_longer_than_a_hang_while_its_batches_do_not(echo_copy):
    slow = with_echo(echo_copy, batch_s=0.4)
    lines = [question_line(f"What is {number}?", "Jim Henson.") for number in range(48)]
    told = []
    with Runner(slow, workers=1, threads=1, hang_timeout_s=1.2) as runner:
        options = options_of(option_kinds(runner.task), {})
        rules = Rules("jsonl", "jsonl", *options, runner.task.columns({}, options[1]), "fail", runner.plan)
        part = runner.submit_block(Block([*json_entries(enumerate(lines, 1))], rules), told.append).result(60)
        assert part.answered == 48 and told == [number / 6 for number in range(1, 7)]
        assert not events(runner, "died")


def test_a_stopped_worker_is_replaced(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=2, hang_timeout_s=1.0) as runner:
        stopped = pids(runner)[0]
        os.kill(stopped, signal.SIGSTOP)
        assert list(runner.map(texts)) == expected
        wait_until(lambda: not is_running(stopped))


STOPPED = """
import sys, time
from neuronbert import Runner
with Runner(sys.argv[1], workers=2, hang_timeout_s=2.0) as runner:
    asked = [runner.submit("Who?", "Jim Henson.") for _ in range(40)]
    print("asked", flush=True)
    for future in asked:
        future.result()
    print([event["event"] for event in runner.events])
"""


def test_workers_are_not_to_blame_while_all_was_stopped(faulty_artifact):
    """Ctrl-Z, and later fg: what was silent for longer than a hang takes is no hang, and nobody is killed for it."""
    artifact = with_echo(faulty_artifact.folder, batch_s=0.3)
    command = [sys.executable, "-c", STOPPED, str(artifact.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(4)
        os.killpg(process.pid, signal.SIGCONT)
        assert "died" not in process.stdout.read()
    assert process.returncode == 0


def test_a_runner_whose_workers_cannot_start_says_why(faulty_artifact):
    path = faulty_artifact.folder / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        Runner(faulty_artifact)  # verified before: the workers find what happened since
    assert not [thread for thread in threading.enumerate() if thread.name == "neuronbert-runner"]


def kill_a_loading_one(runner, kill=signal.SIGKILL):
    worker = runner.stats()["workers"][0]
    if worker["state"] == "starting":
        os.kill(worker["pid"], kill)
    return worker["state"] == "starting"


def fail_a_start(runner):
    """Kill a worker while it loads, and the next one if that was ready by then; the event."""
    before = len(events(runner, "unable"))

    def failed():
        with suppress(ProcessLookupError):
            kill_a_loading_one(runner)
        return events(runner, "unable")[before:]

    return wait_until(failed)[0]


def test_a_worker_that_is_stopped_while_it_loads_is_replaced(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=1, hang_timeout_s=1.0) as runner:
        kill_one(runner)
        wait_until(partial(kill_a_loading_one, runner, signal.SIGSTOP))
        assert runner.submit(*texts[0]).result(60) == expected[0]  # not after start_timeout_s, 600 s


def test_workers_that_are_killed_while_they_load_keep_nobody_out(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=1) as runner:
        kill_one(runner)
        asked = runner.submit(*texts[0])
        for _ in range(3):
            fail_a_start(runner)
        assert runner.submit(*texts[1]).result(60) == expected[1]
        assert asked.result(60) == expected[0]


def test_each_failed_start_has_its_own_cause(faulty_artifact):
    with Runner(faulty_artifact, workers=1) as runner:
        path = faulty_artifact.folder / "config.json"
        good = path.read_bytes()
        path.write_bytes(good + b" ")
        kill_one(runner)
        first = wait_until(lambda: events(runner, "unable"))[0]
        path.write_bytes(good)
        fail_a_start(runner)  # perhaps one that had read it before
        second = fail_a_start(runner)
        assert "config.json" in first["cause"] and "while it was loading" in second["cause"]


def test_an_error_that_many_get_does_not_grow(faulty_artifact, texts):
    """One that is raised again and again keeps the frames of all of them, and what is in these."""
    with Runner(faulty_artifact, workers=1) as runner:
        (faulty_artifact.folder / "config.json").write_bytes(b"{}")
        kill_one(runner)
        wait_until(lambda: runner._dispatcher.unable)
        lengths = set()
        for _ in range(5):
            with pytest.raises(ArtifactError, match=r"config\.json") as caught:
                runner.submit(*texts[0])
            lengths.add(len(caught.traceback))
        assert len(lengths) == 1


def test_a_worker_that_cannot_come_back_is_told_apart(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=1) as runner:
        assert runner.submit(*texts[0]).result(60) == expected[0]
        path = faulty_artifact.folder / "config.json"
        good = path.read_bytes()
        path.write_bytes(good + b" ")
        os.kill(pids(runner)[0], signal.SIGKILL)
        with pytest.raises(ArtifactError, match=r"config\.json"):
            runner.submit(*texts[0]).result(60)
        with pytest.raises(ArtifactError, match=r"config\.json"):
            wait_until(lambda: runner._dispatcher.unable)
            runner.submit(*texts[0])
        path.write_bytes(good)
        wait_until(lambda: pids(runner))
        assert runner.submit(*texts[0]).result(60) == expected[0]


SERVICE = """
    import sys, time
    from neuronbert import Runner
    runner = Runner(sys.argv[1], workers=2)
    with runner:
        futures = [runner.submit("Who?", f"It was number {number}.") for number in range(500)]
        print(*(worker["pid"] for worker in runner.stats()["workers"]), flush=True)
        for future in futures:
            future.result()
            print("answered", flush=True)
        time.sleep(600)
"""


def service(artifact):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVICE), str(artifact.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_sigterm_finishes_what_was_accepted_and_then_ends_the_process(echo_artifact):
    process, workers = service(echo_artifact)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, errors
    assert output.count("answered") <= 500
    assert not any(map(is_running, workers))


def test_signals_from_outside_reach_the_workers_too_and_stop_none(echo_artifact, texts, expected):
    with Runner(echo_artifact, workers=2) as runner:
        before = pids(runner)
        for pid in before:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
            for fault in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT):
                os.kill(pid, fault)  # its own would end it: test_poison... has an abort
        assert list(runner.map(texts)) == expected
        assert pids(runner) == before


def test_killing_the_runner_takes_the_workers_with_it(faulty_artifact):
    process, workers = service(faulty_artifact)
    assert len(workers) == 2 and all(map(is_running, workers))
    os.kill(workers[0], signal.SIGSTOP)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, workers)))


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_listener_that_raises_hurts_nobody(echo_artifact, texts, expected, error):
    def listener(event):
        raise error(event)

    with Runner(echo_artifact, workers=1, on_event=listener) as runner:
        assert runner.submit(*texts[0]).result(60) == expected[0]


@pytest.mark.slow
def test_nothing_leaks_while_workers_die_every_second(faulty_artifact, texts, expected):
    """The chaos run in short; tools/chaos is the long one."""
    with Runner(faulty_artifact, workers=2, hang_timeout_s=2.0) as runner:
        ending = threading.Event()

        def kill():
            while not ending.wait(0.7):
                for pid in pids(runner)[:1]:
                    with suppress(ProcessLookupError):  # a poisoned request was faster
                        os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        poison = [runner.submit("Where is the dynamite?", f"In box {number}.") for number in range(3)]
        began = time.monotonic()
        rounds = 0
        while time.monotonic() - began < 12:
            assert list(runner.map(texts)) == expected
            rounds += 1
        ending.set()
        killer.join()
        assert all(isinstance(future.exception(60), PoisonRequest) for future in poison)
        stats = runner.stats()["requests"]
        assert rounds and stats["deaths"] >= 5
        assert stats["submitted"] == stats["completed"] + stats["failed"] + stats["cancelled"]
