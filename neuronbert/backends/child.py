"""Starts a module of this package as a child process, for isolated.py and neuron/compile_job.py."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Mapping, Optional, Sequence, Union

# Where the child finds the package that its parent runs, installed or not.
PACKAGE_PARENT = Path(__file__).resolve().parents[2]

Stream = Union[int, IO[bytes], None]  # as subprocess takes it: a constant such as DEVNULL, a file, or the parent's own


def start_child(
    module: str,
    argument: str,
    *,
    stdout: Stream,
    stderr: Stream = None,
    variables: Optional[Mapping[str, str]] = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> "subprocess.Popen[bytes]":
    """Run ``python -m module argument`` with this process's environment and ``variables``, and nothing on stdin.

    ``pass_fds`` are the file descriptors that it inherits. With ``new_session`` it leads a process group of its own.
    """
    search_path = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", module, argument],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path), **(variables or {})},
        pass_fds=pass_fds,
        start_new_session=new_session,
    )
