"""The folder of a run beside its output: what a kill must not lose, and who may write there."""

import contextlib
import json
import os
from pathlib import Path
from typing import IO, Any, ContextManager, Dict, Iterator

from neuronbert.artifact.files import output_errors
from neuronbert.errors import OutputError, quoted


class Run:
    """OUTPUT.training/: the options it was started with, the last whole state, and a lock while it is being trained."""

    def __init__(self, output: Path, identity: Dict[str, Any]):
        self.output = output
        self.folder = output.with_name(output.name + ".training")
        self.state_path = self.folder / "state.pt"
        self._identity = identity

    def open(self) -> None:
        """Create the folder, or join it if it is of the same run; OutputError otherwise."""
        if self.output.exists():
            raise OutputError(f"{self.output} exists already", hint="choose another --output, or move it away")
        identity_path = self.folder / "options.json"
        if identity_path.exists():
            started = json.loads(identity_path.read_text(encoding="utf-8"))
            self._refuse_other(started)
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(identity_path) as file:
            file.write(json.dumps(self._identity, indent=2).encode() + b"\n")

    def _refuse_other(self, started: Dict[str, Any]) -> None:
        names = sorted(name for name in {*started, *self._identity} if started.get(name) != self._identity.get(name))
        if names:
            changed = ", ".join(f"{name} was {started.get(name)!r}, is {self._identity.get(name)!r}" for name in names)
            raise OutputError(
                f"{self.folder} holds a run with other options: {changed}",
                hint=f"the options of that run, another --output, or start over: rm -r {quoted(self.folder)}",
            )

    def lock(self) -> ContextManager[object]:
        """Held while training; OutputError if another process holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(str(self.folder / "lock"))
        try:
            held: ContextManager[object] = lock.acquire(timeout=0)
            return held
        except Timeout as error:
            raise OutputError(
                f"another process is training in {self.folder}", hint="wait for it, or stop it"
            ) from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file written under a temporary name, then renamed: ``path`` always holds all of the old or all of the new.

    OutputError where it cannot be written. What a kill leaves of it is overwritten by the next.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        # Which looks at how full the disk is, so before there is room again.
        with output_errors(path):
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
