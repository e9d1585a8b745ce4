"""Starts Python processes: the workers of the runner, isolated.py, neuron/compile_job.py, and those of the tools.

The working directory is where a user's data is, and no process started here imports anything from it, whatever it is
called: child_main.py says how. No other module starts Python.
"""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from neuronbert.hardware.machine import wait_without_spinning

CHILD_MAIN = Path(__file__).absolute().with_name("child_main.py")
OWN_PACKAGE = __name__.partition(".")[0]
FORKS_FOR_A_CHILD = sys.version_info < (3, 10)  # newer ones share memory with it until it is replaced (vfork, Linux)
PARALLEL_TOKENIZERS = b"TOKENIZERS_PARALLELISM"

_silencing = threading.RLock()
if FORKS_FOR_A_CHILD:
    # A fork of the user's meanwhile, in another thread, would have the variable and the lock for good: it waits.
    os.register_at_fork(
        before=_silencing.acquire, after_in_parent=_silencing.release, after_in_child=_silencing.release
    )

Stream = Union[int, IO[bytes], None]  # as subprocess takes it: a constant such as DEVNULL, a file, or the parent's own


def start_child(
    module: str,
    *arguments: object,
    stdout: Stream,
    stderr: Stream = None,
    environment: Optional[Mapping[str, str]] = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start ``python_command`` in ``python_environment``, with nothing on stdin; by default stderr is this process's.

    ``pass_fds`` are the file descriptors that it inherits. With ``new_session`` it leads a process group of its own.
    """
    command, variables = python_command(module, *arguments), python_environment(environment)
    with _silent_forks():
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=standard_error() if stderr is None else stderr,
            env=variables,
            pass_fds=pass_fds,
            start_new_session=new_session,
        )


@contextmanager
def _silent_forks() -> Iterator[None]:
    """Keep tokenizers from writing to stdout, which is for a command's result, that this process was forked.

    It does in each fork of a process that has tokenised, unless this variable is set; Python forks for a child before
    3.10. Not set for good: it would also keep tokenizers from mending a fork of the user's, which then waits for ever.
    """
    if not FORKS_FOR_A_CHILD or "tokenizers" not in sys.modules:
        yield
        return
    # As tokenizers sees the environment, and as it sets the variable to mend a fork: os.environ knows nothing of that.
    # By C's own functions, as those of Python 3.8 free a string that another thread may be reading.
    environment = ctypes.CDLL(None)
    environment.getenv.restype = ctypes.c_char_p
    with _silencing:
        if environment.getenv(PARALLEL_TOKENIZERS) is not None:
            yield
            return
        environment.setenv(PARALLEL_TOKENIZERS, b"true", 1)
        try:
            yield
        finally:
            environment.unsetenv(PARALLEL_TOKENIZERS)


def standard_error() -> Stream:
    """This process's stderr, for a child; nothing where it was closed: its number may be another file's by now."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return subprocess.DEVNULL if sys.__stderr__ is None else 2


def python_command(module: str, *arguments: object) -> List[str]:
    """The command of a process that exits with what ``module.main`` returns for ``arguments``, given as strings.

    It runs the same copy of this package, and of the module's, however they were found here, installed or not.
    """
    packages = map(importlib.import_module, dict.fromkeys((OWN_PACKAGE, module.partition(".")[0])))
    facts = {
        "search_path": [place for place in sys.path if isinstance(place, str) and not is_working_directory(place)],
        "packages": {package.__name__: os.path.abspath(str(package.__file__)) for package in packages},
        "module": module,
    }
    return [sys.executable, str(CHILD_MAIN), json.dumps(facts), *map(str, arguments)]


def python_environment(environment: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """``environment`` (this process's by default) for a Python that shall not import from the working directory.

    Its own children, such as those of ``multiprocessing``, will not either, from Python 3.11 on. Of PYTHONPATH what is
    absolute stays: an empty entry is the working directory, and a relative one is in it.
    """
    safe = dict(os.environ if environment is None else environment)
    places = [place for place in safe.pop("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(place)]
    if places:
        safe["PYTHONPATH"] = os.pathsep.join(places)
    wait_without_spinning(safe)
    return {**safe, "PYTHONSAFEPATH": "1"}


def is_working_directory(place: str) -> bool:
    """Whether an entry of ``sys.path`` is the working directory, by whatever name, or depends on which one it is."""
    try:
        return not os.path.isabs(place) or os.path.samefile(place, os.curdir)
    except OSError:  # one of the two is not there
        return False
