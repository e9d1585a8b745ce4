"""Keeps the points of an unfinished sweep beside its report, so that the same command continues where it stopped."""

import json
import os
from pathlib import Path
from typing import Dict, Mapping, Optional, Union

from neuronbert.artifact.files import output_errors, replace_file
from neuronbert.benchmark.points import LoadSpec, Setting
from neuronbert.benchmark.report import Point
from neuronbert.errors import UsageError, quoted
from neuronbert.hardware.own_places import open_own


def points_path(report: Union[str, Path]) -> Path:
    """The file beside ``report`` that grows until it is written."""
    return Path(f"{os.fspath(report)}.points")


class SavedPoints:
    """The points measured so far: in memory and, where a report is to be written, in a file beside it.

    The file is a line with the sweep's options, then a line [setting, point] for each point.
    """

    def __init__(self, report: Optional[Union[str, Path]], options: Mapping[str, object]):
        """Reads what an earlier run with the same ``options`` left; UsageError for a sweep with other options."""
        self.points: Dict[Setting, Point] = {}
        self._path = None if report is None else points_path(report)
        self._head = json.dumps(dict(options))
        if self._path is not None and os.path.lexists(self._path):
            self._read(self._path)

    def _read(self, path: Path) -> None:
        with open(open_own(path, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            head, *lines = file.read().splitlines() or [""]
        if head != self._head:
            what = "holds the points of a sweep with other options or of another artifact"
            ours = head.startswith('{"') and head.endswith("}")
            hint = f"rm {quoted(path)}" if ours else "another --report, or move it away"
            raise UsageError(f"{path} {what if ours else 'is no file of points'}", hint=hint)
        for line in lines:
            try:
                setting, point = json.loads(line)
            except ValueError:
                break  # cut short by the interruption: measured again
            *axes, load = setting
            self.points[Setting._make([*axes, LoadSpec(*load)])] = point

    def add(self, setting: Setting, point: Point) -> None:
        """Keep a point. Raises OutputError if it cannot be written."""
        self.points[setting] = point
        if self._path is None:
            return
        lines = [self._head, *(json.dumps([setting, point]) for setting, point in self.points.items())]
        with output_errors(self._path):
            replace_file(self._path, "\n".join(lines) + "\n")

    def discard(self) -> None:
        """Remove the file: every point is in the report."""
        if self._path is not None and self._path.exists():
            self._path.unlink()
