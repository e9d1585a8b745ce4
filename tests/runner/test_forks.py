"""A process that was forked from the runner's: a clear error for whatever it asks, and nothing of the parent's ends."""

import json
import signal
import subprocess
import sys
import textwrap

from echo_files import with_echo
from processes import is_running, wait_until

PRELUDE = """
    import json, os, signal, sys, time
    import numpy as np
    from neuronbert import Runner
    from neuronbert.backends.base import Batch
    from neuronbert.errors import NeuronBertError, RunnerClosed

    ROW = np.array([[101, 102]])

    def refusals(runner, mapping, prepared, open_future):
        asked = {
            "submit": lambda: runner.submit("Who?", "It was me."),
            "map": lambda: list(runner.map([("Who?", "It was me.")])),
            "mapping": lambda: list(mapping),
            "submit_encoded": lambda: runner.submit_encoded(ROW),
            "prepare": lambda: runner.prepare([("Who?", "It was me.")]),
            "prepare_encoded": lambda: runner.prepare_encoded(ROW),
            "submit_prepared": lambda: runner.submit_prepared(prepared),
            "submit_together": lambda: runner.submit_together(Batch(ROW, ROW * 0 + 1, ROW * 0)),
            "stats": runner.stats,
            "close": runner.close,
            "result": open_future.result,
            "exception": open_future.exception,
            "result at once": lambda: open_future.result(0),
        }
        found = {}
        for name, ask in asked.items():
            try:
                ask()
                found[name] = "nothing"
            except RunnerClosed as error:
                found[name] = "forked" if "forked from it" in str(error) else str(error)
        return found

    def fork(child):
        pid = os.fork()
        if pid == 0:
            child()
        return os.waitpid(pid, 0)[1]
"""
ASK = """
    with Runner(sys.argv[1], workers=1) as runner:
        pids = [worker["pid"] for worker in runner.stats()["workers"]]
        open_futures = [runner.submit("Who?", f"It was {number}.") for number in range(3)]
        mapping = runner.map(("Who?", f"It was {number}.") for number in range(500))
        next(mapping)
        os.kill(pids[0], signal.SIGSTOP)
        open_futures.append(runner.submit("Who?", "It was the last one."))
        prepared = runner.prepare([("Who?", "It was me.")] * 3)
        reading, writing = os.pipe()

        def child():
            os.write(writing, json.dumps(refusals(runner, mapping, prepared, open_futures[-1])).encode())
            sys.exit(5)  # through the with block, and Python's own end

        status = fork(child)
        os.kill(pids[0], signal.SIGCONT)
        answers = [future.result(30)["answer"] for future in open_futures]
        found = {"code": os.WEXITSTATUS(status), "refusals": json.loads(os.read(reading, 65536)), "answers": answers}
        found["later"] = runner.submit("Who?", "It was me.").result(30)["answer"]
        found["mapped"] = len(list(mapping)) + 1
        found["prepared"] = len([future.result(30) for future in runner.submit_prepared(prepared)])
        found["same workers"] = pids == [worker["pid"] for worker in runner.stats()["workers"]]
    print(json.dumps(found))
"""
SIGNAL = """
    with Runner(sys.argv[1], workers=1) as runner:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, b"!")  # from here on: Python drops a signal that comes while it forks
            time.sleep(600)
        os.read(reading, 1)
        os.kill(pid, signal.SIGTERM)
        status = os.waitpid(pid, 0)[1]
        answered = bool(runner.submit("Who?", "It was me.").result(30))
        print(json.dumps([os.WIFSIGNALED(status) and os.WTERMSIG(status), answered]))
"""


def run(script, *arguments):
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    # Of Python 3.12 on, a fork beside threads is a warning.
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # tokenizers 0.13.3 warns of a fork on stdout: the last line is the script's.
    return json.loads(done.stdout.splitlines()[-1])


def test_a_fork_is_refused_everything_and_ends_nothing(echo_artifact):
    found = run(ASK, echo_artifact.folder)
    assert set(found["refusals"].values()) == {"forked"}, found["refusals"]
    assert found["code"] == 5
    assert all(found["answers"]) and found["later"] and found["same workers"]
    assert found["mapped"] == 500 and found["prepared"] == 3


def test_sigterm_ends_a_fork_at_once_and_drains_nothing(echo_artifact):
    assert run(SIGNAL, echo_artifact.folder) == [signal.SIGTERM, True]


CALLBACK = """
    with Runner(sys.argv[1], workers=1) as runner:
        future = runner.submit("Who?", "It was me.")
        print(runner.stats()["workers"][0]["pid"], flush=True)
        future.add_done_callback(lambda _: os._exit(7))
        time.sleep(60)
"""


def test_a_callback_that_ends_the_process_takes_the_workers_with_it(echo_copy):
    artifact = with_echo(echo_copy, batch_s=0.5)
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(CALLBACK)
    command = [sys.executable, "-c", code, str(artifact.folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 7
    wait_until(lambda: not is_running(int(done.stdout)))


FORK_IN_CALLBACK = """
    ways = {"exit": lambda: sys.exit(5), "say": lambda: sys.exit("bye"), "return": int, "raise": lambda: 1 / 0}
    children = {}

    def fork_and(way):
        pid = os.fork()
        if pid == 0:
            ways[way]()
        else:
            children[way] = pid

    def code(way):
        pid, end = children.pop(way), time.monotonic() + 30
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.WEXITSTATUS(status)
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        return "it did not end"

    def listener(event):
        if event["event"] == "ready":
            fork_and("exit")

    codes = {}
    with Runner(sys.argv[1], workers=1, on_event=listener) as runner:
        codes["listener"] = code("exit")
        futures = [runner.submit("Who?", f"It was {number}.") for number in range(200)]
        for way in ways:
            future = runner.submit("Who?", "It was me.")
            future.add_done_callback(lambda _, way=way: fork_and(way))
            futures.append(future)
        answered = [bool(future.result(30)) for future in futures]
        while len(children) < len(ways):
            time.sleep(0.01)
        codes.update((way, code(way)) for way in ways)
        answered.append(bool(runner.submit("Who?", "It was me.").result(30)))
        events = {event["event"] for event in runner.events}
    print(json.dumps([codes, all(answered), sorted(events & {"died", "callback_raised"})]))
"""


def test_a_child_that_a_callback_forks_ends_with_it_and_is_no_second_runner(echo_copy):
    artifact = with_echo(echo_copy, batch_s=0.05)  # time to add a callback before the answer
    codes = {"listener": 5, "exit": 5, "say": 1, "return": 0, "raise": 1}
    assert run(FORK_IN_CALLBACK, artifact.folder) == [codes, True, []]
