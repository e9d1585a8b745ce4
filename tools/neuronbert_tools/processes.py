"""Runs a module of this package in a process of its own."""

import os
import subprocess
from typing import List, Mapping

from neuronbert.backends.child import python_command, python_environment


def module_command(name: str, *arguments: object) -> List[str]:
    """The command that runs ``neuronbert_tools.NAME`` with this interpreter."""
    return python_command(f"neuronbert_tools.{name}", *arguments)


def verb_command(name: str, *arguments: object) -> List[str]:
    """The command that runs the verb ``name`` of neuronbert with this interpreter."""
    return python_command("neuronbert.cli.main", name, *arguments)


def run_module(name: str, *arguments: object, variables: Mapping[str, str]) -> str:
    """What ``neuronbert_tools.NAME`` prints with ``variables`` set; CalledProcessError if it fails."""
    command = module_command(name, *arguments)
    environment = python_environment({**os.environ, **variables})
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
