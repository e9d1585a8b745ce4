"""Writes files and folders that appear complete or not at all, and says in words why one cannot be written.

It knows nothing of artifacts: whatever in the package leaves something on the disk goes through it.
"""

import errno
import os
import shlex
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, Union

from neuronbert.errors import NeuronBertError, OutputError

# With less free space than this, any failure of a writer counts as a full disk.
FULL_DISK_BYTES = 1 << 16

# errno → what happened, and what to do about it.
REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space (df -h .), or write to another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or write to another disk"),
    errno.EFBIG: ("a file would be larger than this process may write", "ulimit -f unlimited, or another disk"),
    errno.EROFS: ("the file system is read-only", "another output folder"),
    errno.EACCES: ("permission denied", "another output folder, or chmod u+w on its parent"),
    errno.EPERM: ("permission denied", "another output folder, or chmod u+w on its parent"),
    errno.ENOTDIR: ("a part of the path is a file", "another output folder"),
    errno.EEXIST: ("a part of the path is a file", "another output folder"),
    errno.ENAMETOOLONG: ("the name is too long", "a shorter name"),
}


def replace_file(path: Path, content: Union[str, bytes]) -> None:
    """Write ``content`` (text as UTF-8) to ``path``: a reader sees the old file or the new one, never a part of one.

    It is written beside ``path`` under its name with ".tmp" added, and renamed. Raises what the file system raises;
    then ``path`` is as it was, and the temporary file is gone.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()


@contextmanager
def new_folder(output: Union[str, "os.PathLike[str]"]) -> Iterator[Path]:
    """A folder under a temporary name beside ``output`` that is renamed to it only if the block ends without an error.

    Raises OutputError if ``output`` exists, or if it cannot be written or the disk is full. Nothing is left after an
    error or Ctrl-C.
    """
    target = Path(output)
    refuse_existing(target)
    with parents_of(target):
        with output_errors(target):
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=str(target.parent)))
        try:
            with output_errors(target):
                yield partial
                refuse_existing(target)
                os.chmod(partial, 0o777 & ~_umask())
                os.rename(partial, target)
        finally:
            _remove(partial)


def _remove(folder: Path) -> None:
    """Remove a folder even if the user presses Ctrl-C again and again meanwhile."""
    for _ in range(10):
        with suppress(KeyboardInterrupt):
            shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def parents_of(target: Path) -> Iterator[None]:
    """Make the folders above ``target``; after an error remove those it made, if they are still empty."""
    absent = [folder for folder in target.parents if not os.path.lexists(folder)]
    try:
        with output_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in absent:  # the deepest first
            with suppress(OSError):
                folder.rmdir()
        raise


def refuse_existing(target: Path) -> None:
    """Raise OutputError if there is something at ``target``."""
    if os.path.lexists(target):
        # Never suggest removing the folder that the command is typed in, or one above it.
        above = target.resolve() in (Path.cwd(), *Path.cwd().parents)
        remove = "" if above else f", or remove it first: rm -r {shlex.quote(str(target))}"
        raise OutputError(f"{target} exists already", hint=f"another name{remove}")


@contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turn what the file system reports inside the block, while ``target`` is written, into an OutputError.

    Errors about files elsewhere, and those without an entry in ``REASONS``, pass through unchanged.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, NeuronBertError) and not _is_full(target):
            raise
        code = errno.ENOSPC if _is_full(target) else getattr(error, "errno", None)
        if code not in REASONS or _is_elsewhere(error, target):
            raise
        reason, hint = REASONS[code]
        raise OutputError(f"cannot write {target}: {reason}", hint=hint) from error


def _is_full(target: Path) -> bool:
    """Whether the disk is full, which native writers report as a RuntimeError of their own, or not at all."""
    try:
        return shutil.disk_usage(target.parent).free < FULL_DISK_BYTES
    except OSError:
        return False


def _is_elsewhere(error: BaseException, target: Path) -> bool:
    """Whether the error names a file that is not beside or below ``target``."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, os.PathLike)):
        return False
    parent = target.parent.resolve()
    path = Path(name).resolve()
    return path not in (parent, *parent.parents) and parent not in path.parents


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
