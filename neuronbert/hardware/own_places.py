"""Folders and files with names that others can guess: only this user's own are used, and no link is followed.

Whatever the package keeps under a fixed name, in a temporary folder or beside a user's files, is opened here. Names
that are needed once come from ``tempfile``, which makes them up.
"""

import errno
import fcntl
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

from neuronbert.errors import OutputError, quoted

CACHE_VARIABLE = "NEURONBERT_CACHE"

PathLike = Union[str, "os.PathLike[str]"]


def own_temporary_folder(name: str) -> Path:
    """Where this user's processes meet: a path in the temporary folder, one for each user; it need not be there."""
    return Path(tempfile.gettempdir(), f"{name}-{os.getuid()}")


def own_folder(folder: Path) -> Path:
    """``folder``, made for this user alone if it is not there (and so are those above it).

    OutputError if it is a symbolic link, no folder, another user's, or one that others may write to: they could plant
    in it what this process would follow or read. OSError if it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    fault = fault_of_folder(folder)
    if fault:
        raise OutputError(f"{folder} {fault}", hint=f"look who made it: ls -ld {quoted(folder)}")
    return folder


def cache_path(name: str) -> Path:
    """``name`` in $NEURONBERT_CACHE, or in ``neuronbert`` in the user's cache folder; it need not be there."""
    chosen = os.environ.get(CACHE_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return (Path(chosen) if chosen else Path(home, "neuronbert")) / name


def fault_of_folder(folder: Path) -> str:
    """Why ``folder`` cannot be trusted with this user's files; empty if it can. OSError if it is not there."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(status.st_mode) else "is not a folder"
    if not _is_ours(status, folder):
        return f"belongs to user {status.st_uid}, not to this one ({os.geteuid()})"
    return "may be written to by other users" if status.st_mode & 0o022 else ""


def _is_ours(status: os.stat_result, folder: PathLike) -> bool:
    """Whether it belongs to this user; some network file systems give what anyone makes in ``folder`` another owner."""
    if status.st_uid == os.geteuid():
        return True
    try:
        with tempfile.TemporaryFile(dir=os.fspath(folder)) as probe:
            return os.fstat(probe.fileno()).st_uid == status.st_uid
    except OSError:
        return False


def open_own(path: PathLike, flags: int = os.O_RDWR | os.O_CREAT, mode: int = 0o600) -> int:
    """A descriptor of a regular file of this user's with one name, made if ``flags`` say so.

    OutputError for a symbolic link, a second hard link, a device, a FIFO, or another user's file: writing there would
    change something that was never meant.
    """
    try:
        # Without O_NONBLOCK a FIFO would wait for its other end.
        descriptor = os.open(path, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO) or not os.path.lexists(path):
            raise
        raise _foreign(path, "is not a regular file") from None
    try:
        fault = _fault_of_file(os.fstat(descriptor), os.path.dirname(path) or ".")
        if fault:
            raise _foreign(path, fault)
        os.set_blocking(descriptor, True)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _fault_of_file(status: os.stat_result, folder: PathLike) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if not _is_ours(status, folder):
        return f"belongs to user {status.st_uid}, not to this one ({os.geteuid()})"
    return "has a second name (a hard link)" if status.st_nlink > 1 else ""


def _foreign(path: PathLike, fault: str) -> OutputError:
    what = "is a symbolic link" if os.path.islink(path) else fault
    return OutputError(f"{os.fspath(path)} {what}", hint=f"look who made it: ls -l {quoted(path)}")


@contextmanager
def locked(path: PathLike) -> Iterator[None]:
    """Hold the lock of ``path`` inside the block; a process that dies in it releases the lock."""
    descriptor = open_own(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
