"""Writes files and folders that appear complete or not at all, and says in words why one cannot be written.

It knows nothing of artifacts: whatever in the package leaves something on the disk goes through it.
"""

import errno
import glob
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Collection, Iterable, Iterator, Optional, Union

from neuronbert.errors import NeuronBertError, OutputError, UsageError, quoted
from neuronbert.hardware.own_places import PathLike

# With less free space than this, any failure of a writer counts as a full disk.
FULL_DISK_BYTES = 1 << 16
LEFTOVER_SUFFIX = ".neuronbert-tmp"

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
    errno.ELOOP: ("a symbolic link is in its place", "another output"),
}


def replace_file(path: Path, content: Union[str, bytes]) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, as ``replaced_file`` does."""
    with replaced_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """The new content of ``path``, for the block to write: a reader sees the old file or the new one, never a part.

    It is written beside ``path`` under a name that nobody can guess, and renamed: nothing that is there is followed or
    overwritten. Raises what the file system raises; after an error ``path`` is as it was, and the temporary file is
    gone. Only a kill leaves one (``remove_leftovers``).
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}{LEFTOVER_SUFFIX}")
    try:
        # The mode is the umask's, which Python could only read by setting it for every thread.
        with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "w+b") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what a kill left of a ``replaced_file`` of ``path``; another at it meanwhile would lose its file."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}{LEFTOVER_SUFFIX}"):
        _discard(found)


def _discard(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()


@contextmanager
def new_folder(output: PathLike) -> Iterator[Path]:
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
                _open_to_others(partial)
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
    """Raise OutputError if there is something at ``target``.

    Its hint has no command that removes it: a slip of the hand may have named an input, or the folder one is in.
    """
    if os.path.lexists(target):
        raise OutputError(f"{target} exists already", hint="another name, or move away what is there")


def refuse_target(path: Union[str, Path], what: str, made: str, suffixes: Collection[str]) -> None:
    """UsageError, before any work is done, for the place of a ``what`` ("report") that could not be ``made`` there.

    Its suffix must be one of ``suffixes``, and its folder must be there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        endings = (", " if len(suffixes) > 2 else " or ").join(suffixes)
        raise UsageError(
            f"a {what} is not {made} as {suffix or 'a file without a suffix'}: {path}",
            hint=f"a name that ends in {endings}",
        )
    if not os.path.isdir(Path(path).absolute().parent):
        parent = Path(path).parent
        raise UsageError(f"there is no folder {parent} for the {what}", hint=f"mkdir -p {quoted(parent)}")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Optional[PathLike]]) -> None:
    """Raise OutputError if an output is the same file or folder as one of ``inputs`` ("-": stdin; None: none)."""
    statuses = {name: _status(name) for name in map(str, filter(None, inputs))}
    for output in outputs:
        written = _status(output)
        for name, read in statuses.items():
            if written is not None and read is not None and os.path.samestat(written, read):
                raise OutputError(f"{output} would be written, and is the input {name}", hint="another output")


def refuse_inside(folder: PathLike, output: PathLike) -> None:
    """Raise OutputError if ``output`` would lie in ``folder``, an artifact, which nobody could load any more."""
    if Path(os.path.realpath(folder)) in Path(os.path.realpath(output)).parents:
        raise OutputError(
            f"{os.fspath(output)} would be written into the artifact {os.fspath(folder)}, which would be damaged by it",
            hint="another output",
        )


def _status(path: PathLike) -> Optional[os.stat_result]:
    try:
        return os.fstat(0) if os.fspath(path) == "-" else os.stat(path)
    except (OSError, ValueError):
        return None


@contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turn what the file system reports inside the block, while ``target`` is written, into an OutputError.

    Errors about files elsewhere pass through unchanged, and so do those that name no file and are not in ``REASONS``.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = None if isinstance(error, NeuronBertError) else getattr(error, "errno", None)
        # Native writers report a full disk as a RuntimeError of their own, or not at all.
        if code is None and _is_full(target):
            code = errno.ENOSPC
        named = _names(error, target)
        if code is None or named is False or (named is None and code not in REASONS):
            raise
        reason, hint = REASONS.get(code, (os.strerror(code), "another place for the output"))
        raise OutputError(f"cannot write {target}: {reason}", hint=hint) from error


def _is_full(target: Path) -> bool:
    try:
        disk = os.statvfs(target.parent)
    except OSError:
        return False
    # What has no blocks at all, such as /proc, is no disk.
    return disk.f_blocks > 0 and disk.f_bavail * disk.f_frsize < FULL_DISK_BYTES


def _names(error: BaseException, target: Path) -> Optional[bool]:
    """Whether the error names a file above, beside or below ``target``, or one elsewhere; None if it names none."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, os.PathLike)):
        return None
    parent = target.parent.resolve()
    path = Path(name).resolve()
    return path in (parent, *parent.parents) or parent in path.parents


def _open_to_others(private: Path) -> None:
    """Give a folder of ``mkdtemp`` the mode of any other: a folder in it tells which without a change of the umask."""
    ordinary = private / ".mode"
    ordinary.mkdir()
    mode = ordinary.stat().st_mode & 0o777
    ordinary.rmdir()
    os.chmod(private, mode)
