"""Finds the module of a command in tools/ and runs its ``main`` on the command line."""

import importlib
import sys
from pathlib import Path
from typing import cast

from neuronbert_tools.paths import ROOT


def launch(script: str) -> int:
    """Run the module that has the name of the file ``script``; the exit code."""
    # The checkout's neuronbert comes before one that is installed.
    sys.path.insert(0, str(ROOT))
    module = importlib.import_module(f"neuronbert_tools.{Path(script).stem}")
    return cast(int, module.main(sys.argv[1:]))
