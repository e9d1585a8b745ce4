"""Finds the module of a command in tools/ and runs its ``main`` on the command line."""

import importlib
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn, cast

from neuronbert_tools.console import print_message
from neuronbert_tools.paths import ROOT


def launch(script: str) -> int:
    """Run the module that has the name of the file ``script``; the exit code. Errors become text here."""
    # The checkout's neuronbert comes before one that is installed.
    sys.path.insert(0, str(ROOT))
    from neuronbert.errors import NeuronBertError
    from neuronbert.hardware.libraries import optional_imports

    # As Ctrl-C does, it ends through what the tool cleans up: the processes that it started, above all.
    signal.signal(signal.SIGTERM, _end)
    try:
        with optional_imports():
            module = importlib.import_module(f"neuronbert_tools.{Path(script).stem}")
            return cast(int, module.main(sys.argv[1:]))
    except NeuronBertError as error:
        print_message(f"error: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("neuronbert"):
            raise
        python = shlex.quote(str(ROOT / ".venv" / "bin" / "python"))
        print_message(f"error: {error}")
        print_message(f"  try: {python} {shlex.quote(script)}, in the environment that tools/test makes")
        return 1


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
