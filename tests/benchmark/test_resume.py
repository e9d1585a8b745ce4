"""What an interrupted sweep leaves beside its report, and what it is taken for."""

import json

import pytest
from made_reports import point

from neuronbert.benchmark.points import CLOSED, OPEN, LoadSpec, Setting
from neuronbert.benchmark.resume import SavedPoints
from neuronbert.errors import OutputError, UsageError

POINT = point(8, 4)
OPTIONS = {"artifact": "abc", "longest_s": 15.0}
FIRST = Setting("openvino-int8", None, None, 2, 8, None, True, LoadSpec(CLOSED, 4.0))
SECOND = FIRST._replace(load=LoadSpec(OPEN, None))


def saved(tmp_path):
    points = SavedPoints(tmp_path / "report.json", OPTIONS)
    points.add(FIRST, POINT)
    points.add(SECOND, {**POINT, "throughput_avg": None})
    return tmp_path / "report.json.points"


def test_points_come_back_as_they_were(tmp_path):
    saved(tmp_path)
    again = SavedPoints(tmp_path / "report.json", OPTIONS)
    assert again.points == {FIRST: POINT, SECOND: {**POINT, "throughput_avg": None}}
    again.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_cut_short_is_measured_again(tmp_path):
    path = saved(tmp_path)
    path.write_text(path.read_text()[:-9])
    assert list(SavedPoints(tmp_path / "report.json", OPTIONS).points) == [FIRST]


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, "3", '[["a"], {}]', '{"setting": {"variant": "a"}, "point": {}}'],
    ids=["deep", "number", "old", "half"],
)
def test_a_line_of_another_form_is_measured_again(tmp_path, line):
    path = saved(tmp_path)
    head, first, second = path.read_text().splitlines()
    path.write_text(f"{head}\n{first}\n{line}\n{second}\n")
    assert list(SavedPoints(tmp_path / "report.json", OPTIONS).points) == [FIRST]


def test_a_point_that_no_report_could_hold_is_measured_again(tmp_path):
    path = saved(tmp_path)
    path.write_text(path.read_text().replace('"batch_size": 8', '"batch_size": "8"'))
    assert SavedPoints(tmp_path / "report.json", OPTIONS).points == {}


def test_a_file_of_somebody_else_is_refused_and_no_hint_removes_it(tmp_path):
    path = tmp_path / "report.json.points"
    path.write_text("precious\n")
    with pytest.raises(UsageError, match="is no file of points") as caught:
        SavedPoints(tmp_path / "report.json", OPTIONS)
    assert "rm " not in str(caught.value.hint)
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is a symbolic link"):
        SavedPoints(tmp_path / "report.json", OPTIONS)


def test_another_sweep_is_refused_with_what_removes_it(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(UsageError, match="other options or of another artifact") as caught:
        SavedPoints(tmp_path / "report.json", {**OPTIONS, "longest_s": 5.0})
    assert caught.value.hint == f"rm {path}"


def test_the_first_line_is_the_options_and_each_other_one_a_point(tmp_path):
    head, *points = saved(tmp_path).read_text().splitlines()
    assert json.loads(head) == OPTIONS and len(points) == 2


def test_without_a_report_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = SavedPoints(None, OPTIONS)
    points.add(FIRST, {})
    points.discard()
    assert list(points.points) == [FIRST] and list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*report.json.points: a part of the path is a file"):
        SavedPoints(tmp_path / "file" / "report.json", OPTIONS).add(FIRST, {})
