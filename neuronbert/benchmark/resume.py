"""Keeps the points of an unfinished sweep beside its report, so that the same command continues where it stopped."""

import json
import os
from pathlib import Path
from typing import Dict, Mapping, Optional, Union

from neuronbert.artifact.files import output_errors, replace_file
from neuronbert.benchmark.points import LoadSpec, Setting
from neuronbert.benchmark.report import Point
from neuronbert.benchmark.report_file import MOST, POINT, REPORT_BYTES
from neuronbert.errors import UsageError, quoted
from neuronbert.hardware.own_places import open_own
from neuronbert.hardware.schema import FLAG, TEXT, Form, Schema, record, whole
from neuronbert.hardware.untrusted import Refusal, document_of

_COUNT = whole(1, MOST, "null")
_LOAD = record({"kind": TEXT, "number": {"type": ["number", "null"]}})
_SETTING: Form = {
    **record(
        {
            "variant": TEXT,
            "pipeline_cores": _COUNT,
            "workers": _COUNT,
            "threads": _COUNT,
            "batch_size": _COUNT,
            "sequence_length": _COUNT,
            "text": FLAG,
            "load": {**_LOAD, "additionalProperties": False},
        }
    ),
    "additionalProperties": False,
}
_LINE = Schema(**record({"setting": _SETTING, "point": POINT}))


def points_path(report: Union[str, Path]) -> Path:
    """The file beside ``report`` that grows until it is written."""
    return Path(f"{os.fspath(report)}.points")


class SavedPoints:
    """The points measured so far: in memory and, where a report is to be written, in a file beside it.

    The file is a line with the sweep's options, then a line {"setting", "point"} for each point.
    """

    def __init__(self, report: Optional[Union[str, Path]], options: Mapping[str, object]):
        """Reads what an earlier run with the same ``options`` left; UsageError for a sweep with other options."""
        self.points: Dict[Setting, Point] = {}
        self._path = None if report is None else points_path(report)
        self._head = json.dumps(dict(options))
        if self._path is not None and os.path.lexists(self._path):
            self._read(self._path)

    def _read(self, path: Path) -> None:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            head, *lines = file.read(REPORT_BYTES).splitlines() or [b""]
        if head != self._head.encode():
            what = "holds the points of a sweep with other options or of another artifact"
            ours = head.startswith(b'{"') and head.endswith(b"}")
            hint = f"rm {quoted(path)}" if ours else "another --report, or move it away"
            raise UsageError(f"{path} {what if ours else 'is no file of points'}", hint=hint)
        for line in lines:
            try:
                kept = document_of(line, str(path), _LINE, Refusal(UsageError, ""))
            except UsageError:
                break  # it was cut short, or is of another release: measured again
            load = LoadSpec(**kept["setting"]["load"])
            self.points[Setting(**{**kept["setting"], "load": load})] = kept["point"]

    def add(self, setting: Setting, point: Point) -> None:
        """Keep a point. Raises OutputError if it cannot be written."""
        self.points[setting] = point
        if self._path is None:
            return
        lines = [self._head, *(json.dumps(_kept(setting, point)) for setting, point in self.points.items())]
        with output_errors(self._path):
            replace_file(self._path, "\n".join(lines) + "\n")

    def discard(self) -> None:
        """Remove the file: every point is in the report."""
        if self._path is not None and self._path.exists():
            self._path.unlink()


def _kept(setting: Setting, point: Point) -> Dict[str, object]:
    return {"setting": {**setting._asdict(), "load": setting.load._asdict()}, "point": point}
