"""Workers that die, hang and fail: nothing accepted is lost, and the request at fault is told apart."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from processes import is_running, wait_until

from neuronbert import Runner
from neuronbert.errors import ArtifactError, BackendFailed, PoisonRequest


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


@pytest.mark.parametrize(("word", "cause"), [("dynamite", "exited with code 9"), ("torpedo", "died of SIGABRT")])
def test_poison_is_refused_after_two_workers_and_hurts_nobody(faulty_artifact, texts, expected, word, cause):
    with Runner(faulty_artifact, workers=2) as runner:
        good = [runner.submit(*pair) for pair in texts[:40]]
        poison = runner.submit(f"Where is the {word}?", "It is in the box.")
        more = [runner.submit(*pair) for pair in texts[40:80]]
        with pytest.raises(PoisonRequest, match=r"request \d+ was with 2 workers when they died"):
            poison.result(60)
        assert [future.result(60) for future in good + more] == expected[:80]
        assert {event["cause"] for event in events(runner, "died")} == {cause}
        assert runner.stats()["requests"]["deaths"] == 2


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


def test_a_stopped_worker_is_replaced(faulty_artifact, texts, expected):
    with Runner(faulty_artifact, workers=2, hang_timeout_s=1.0) as runner:
        stopped = pids(runner)[0]
        os.kill(stopped, signal.SIGSTOP)
        assert list(runner.map(texts)) == expected
        wait_until(lambda: not is_running(stopped))


def test_a_runner_whose_workers_cannot_start_says_why(faulty_artifact):
    path = faulty_artifact.folder / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        Runner(faulty_artifact)  # verified before: the workers find what happened since
    assert not [thread for thread in threading.enumerate() if thread.name == "neuronbert-runner"]


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


def test_sigterm_reaches_the_workers_too_and_stops_none(echo_artifact, texts, expected):
    with Runner(echo_artifact, workers=2) as runner:
        before = pids(runner)
        for pid in before:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
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
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        poison = [runner.submit("Where is the dynamite?", f"In box {number}.") for number in range(3)]
        began = time.monotonic()
        rounds = 0
        while time.monotonic() - began < 12:
            found = list(runner.map(texts, on_error="yield"))
            right = [result == wanted for result, wanted in zip(found, expected)]
            # Two workers killed from outside while they had the same request: it is told so. Nothing else may happen.
            assert all(ok or isinstance(result, PoisonRequest) for ok, result in zip(right, found))
            rounds += 1
        ending.set()
        killer.join()
        assert all(isinstance(future.exception(60), PoisonRequest) for future in poison)
        stats = runner.stats()["requests"]
        assert rounds and stats["deaths"] >= 5
        assert stats["submitted"] == stats["completed"] + stats["failed"] + stats["cancelled"]
