"""Runs inside a child that test_child.py starts: says what it can import from, and starts a child of a library."""

import json
import os
import subprocess
import sys
from multiprocessing import resource_tracker


def main(arguments):
    if arguments[0] == "tracker":
        resource_tracker.ensure_running()
        resource_tracker._resource_tracker._stop()  # waits for its end
    if arguments[0] == "nested":
        subprocess.run([sys.executable, "-c", "import json"], check=True)
    if arguments[0] == "print":
        for number in (1, 2):
            os.write(number, b"as a library in C prints")
    print(json.dumps({"path": sys.path, "arguments": arguments, "directory": os.getcwd()}))
    return 7
