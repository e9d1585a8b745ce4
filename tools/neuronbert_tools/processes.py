"""Runs a module of this package in a process of its own."""

import os
import subprocess
import sys
from typing import Dict, List, Mapping

from neuronbert_tools.paths import ROOT, TOOLS


def module_command(name: str, *arguments: object) -> List[str]:
    """The command that runs ``neuronbert_tools.NAME`` with this interpreter."""
    return [sys.executable, "-m", f"neuronbert_tools.{name}", *map(str, arguments)]


def module_environment(variables: Mapping[str, str], inherited: Mapping[str, str] = os.environ) -> Dict[str, str]:
    """``inherited`` with ``variables``, and with a path on which a child finds the checkout and this package."""
    path = [str(ROOT), str(TOOLS), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(path), **variables}


def run_module(name: str, *arguments: object, variables: Mapping[str, str]) -> str:
    """What ``neuronbert_tools.NAME`` prints with ``variables`` set; CalledProcessError if it fails."""
    command = module_command(name, *arguments)
    done = subprocess.run(command, check=True, env=module_environment(variables), stdout=subprocess.PIPE, text=True)
    return done.stdout
