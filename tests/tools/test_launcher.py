"""How a tool of tools/ is started and ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"
# A tool that waits for a process of its own, whose number it prints. It looks again and again: Python heeds a signal
# that comes just before a wait() once that is over.
NAP = """
import subprocess, sys, time, types
sys.path.insert(0, sys.argv[1])
from neuronbert_tools.launcher import launch

def main(arguments):
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            print(child.pid, flush=True)
            while child.poll() is None:
                time.sleep(0.05)
            return 0
        finally:
            child.kill()

sys.modules["neuronbert_tools.nap"] = nap = types.ModuleType("neuronbert_tools.nap")
nap.main = main
sys.exit(launch("nap"))
"""


def test_a_tool_that_is_terminated_ends_what_it_started() -> None:
    with subprocess.Popen([sys.executable, "-c", NAP, str(TOOLS)], stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        child = int(tool.stdout.readline())
        tool.terminate()
        assert tool.wait(timeout=60) == 128 + signal.SIGTERM
    for _ in range(600):
        if not is_running(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the tool's process outlived it")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
