"""The error boundary of the command line: runs a verb and turns its ending into text, JSON and an exit code."""

import errno
import io
import json
import os
import select
import shlex
import shutil
import sys
from contextlib import suppress
from datetime import datetime
from typing import List, Optional, Sequence, TextIO

import click

from neuronbert import __version__
from neuronbert.cli.interrupts import EXIT_INTERRUPTED, Interrupts
from neuronbert.cli.progress import note
from neuronbert.errors import MissingLibrary, NeuronBertError, UsageError, in_words

EXIT_BUG = 3
COMPLETION_VARIABLE = "_NEURONBERT_COMPLETE"  # click's name for it
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EBADF)  # the disk is full, a quota is used up, stdout is closed
# Where no file is named: stdout is a terminal that has gone, or a file that would be larger than ulimit -f allows.
UNWRITABLE_STDOUT = (errno.EIO, errno.EFBIG)


def run_group(group: click.Group, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Run a command line of ``group``; its exit code. Every error becomes text here and nowhere else.

    ``interrupts`` change nothing any more when it returns, and are still to be given back.
    """
    as_json = "--json" in arguments
    known = arguments and arguments[0] in group.commands
    manual = f"neuronbert {arguments[0]} --help" if known else "neuronbert --help"
    try:
        with interrupts.heeded():
            invoke(group, arguments)
            if sys.stdout is not None:
                sys.stdout.flush()
        return 0
    except (KeyboardInterrupt, click.Abort):
        interrupts.end()  # it may have come on the way out of ``heeded``
        return report_interrupt(as_json)
    except click.UsageError as error:
        return report_usage(error, as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except NeuronBertError as error:
        if interrupts.received:
            return report_interrupt(as_json)
        return report_error(error.message, error.hint or manual, error.exit_code, as_json)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and is_reader_gone():
            return 0  # the reader of a pipe (head, less) has left: nobody is left to tell
        if isinstance(error, OSError) and is_unwritable(error):
            return report_unwritable(error, as_json)
        if interrupts.received:
            return report_interrupt(as_json)
        missing = missing_library(error) or missing_folder(error)
        if missing is not None:
            return report_error(missing.message, missing.hint or manual, missing.exit_code, as_json)
        return report_bug(error, arguments, as_json)
    finally:
        for stream in (sys.stdout, sys.stderr):
            discard_unwritable(stream)


def invoke(group: click.Group, arguments: Sequence[str]) -> None:
    """Run the verb; like click's main(), but for what that makes of errors: it ends silently where a pipe broke."""
    if COMPLETION_VARIABLE in os.environ:  # a shell asks what could be typed next
        group.main(prog_name="neuronbert", complete_var=COMPLETION_VARIABLE)
    with group.make_context("neuronbert", list(arguments), obj=as_typed(arguments)) as context:
        group.invoke(context)


def is_reader_gone() -> bool:
    """Whether stdout is a pipe or a socket that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # an error and a hang-up are always told
        return bool(poll.poll(0))
    except (OSError, ValueError, AttributeError):  # stdout is closed or no file; Windows has no poll
        return False


def is_unwritable(error: OSError) -> bool:
    """Whether it says that a file, or the result itself, cannot be written for reasons of the machine."""
    return error.errno in UNWRITABLE or (error.errno in UNWRITABLE_STDOUT and error.filename is None)


def missing_library(error: Exception) -> Optional[MissingLibrary]:
    """What to say of an import that failed where nobody looks after it, as inside another library; None for others."""
    if not isinstance(error, ImportError):
        return None
    from neuronbert.hardware.libraries import explained  # here, so that --help does not wait for it

    return explained(error)


def missing_folder(error: Exception) -> Optional[NeuronBertError]:
    """What to say of an error that came from a working directory that was deleted; None for others."""
    from neuronbert.hardware.machine import working_directory  # here, so that --help does not wait for it

    if not isinstance(error, FileNotFoundError) or working_directory() is not None:
        return None
    return NeuronBertError("the working directory no longer exists", hint="cd into one that does")


def as_typed(arguments: Sequence[str]) -> str:
    """The command line again, to be pasted into a shell in the same folder; verbs find it as click's ``obj``."""
    program = sys.argv[0]
    if os.path.basename(program) == "neuronbert":
        words = ["neuronbert" if shutil.which("neuronbert") == program else program]
    else:  # python -m neuronbert, or a program of its own
        words = [sys.executable, "-m", "neuronbert"]
    return " ".join(map(shlex.quote, [*words, *arguments]))


def discard_unwritable(stream: Optional[TextIO]) -> None:
    """Give up what ``stream`` holds and cannot write: Python would try it again at its end, and exit with 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def report_interrupt(as_json: bool) -> int:
    """Say that the command was interrupted; the exit code."""
    note("\ninterrupted")  # a terminal shows ^C at the beginning of the line
    return end("interrupted", None, EXIT_INTERRUPTED, as_json)


def report_unwritable(error: OSError, as_json: bool) -> int:
    """Say that a file, or the result itself, could not be written for want of room; the exit code."""
    if error.filename is not None:
        return report_error(f"cannot write {error.filename}: {error.strerror}", "free some space", 1, as_json)
    return report_error(f"cannot write the result: {error.strerror}", "another place for stdout", 1, False)


def report_usage(error: click.UsageError, as_json: bool) -> int:
    """Say how a command is used, as click does; the exit code."""
    text = io.StringIO()
    error.show(text)
    note(text.getvalue().rstrip("\n"))
    return end(error.format_message(), None, UsageError.exit_code, as_json)


def report_error(message: str, hint: str, code: int, as_json: bool) -> int:
    """What was wrong, then what to do; the exit code."""
    note(f"error: {message}")
    note(f"  try: {hint}")
    return end(message, hint, code, as_json)


def end(message: str, hint: Optional[str], code: int, as_json: bool) -> int:
    """The exit code, whether or not it can be said; under --json an error is the one document on stdout."""
    if as_json:
        with suppress(OSError):  # a full disk, a reader or a terminal that has gone
            click.echo(json.dumps({"error": message, "try": hint, "exit_code": code}))
    return code


def report_bug(error: Exception, arguments: Sequence[str], as_json: bool) -> int:
    """Keep the traceback in a file and say where it is."""
    import tempfile  # here, so that --help does not wait for what it imports
    import traceback

    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    log = f"neuronbert {__version__}, Python {sys.version}, arguments {without_token(arguments)}\n\n"
    log += "".join(traceback.format_exception(type(error), error, error.__traceback__))
    what = f"a bug in neuronbert: {in_words(error)}"
    prefix = f"neuronbert-{stamp}-"
    try:
        with tempfile.NamedTemporaryFile("wb", prefix=prefix, suffix=".log", delete=False) as file:
            file.write(log.encode("utf-8", "backslashreplace"))
    except OSError:
        note(log)
        return report_error(what, "report it with the traceback above", EXIT_BUG, as_json)
    return report_error(what, f"report it with {file.name}, which holds the traceback", EXIT_BUG, as_json)


def without_token(arguments: Sequence[str]) -> List[str]:
    """The arguments with the hub token masked, to be shown to others."""
    shown = ["--token=***" if argument.startswith("--token=") else argument for argument in arguments]
    return ["***" if before == "--token" else argument for before, argument in zip(["", *shown], shown)]
