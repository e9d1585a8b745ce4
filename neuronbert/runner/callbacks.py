"""Calls the user's functions in the runner's thread, for ``futures`` and ``events``: nothing that they do ends it.

A child that such a function forks ends where the function does: what it would return to is the runner, whose sockets
and workers are its parent's.
"""

import os
import sys
from contextlib import suppress
from typing import Callable, Optional, TypeVar

Argument = TypeVar("Argument")


def call_guarded(
    function: Callable[[Argument], object], argument: Argument, report: Callable[[BaseException], None]
) -> None:
    """Call it; what it raises goes to ``report``, ``sys.exit()`` too: it would end the runner, not the process."""
    process = os.getpid()
    try:
        function(argument)
    except BaseException as error:
        _end_child(process, error)
        report(error)
    else:
        _end_child(process, None)


def _end_child(parent: int, error: Optional[BaseException]) -> None:
    """If this is not ``parent``, end as Python does when the main thread returned, or raised ``error``."""
    if os.getpid() == parent:
        return
    code = 1
    try:
        code = _exit_code(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # closed, or there is none
                stream.flush()
    finally:
        os._exit(code)  # not sys.exit(): what stands in the with blocks and handlers on the way is the parent's


def _exit_code(error: Optional[BaseException]) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1
