"""The picture of a plan: what is drawn, what stands below it, and what is refused before anything is planned."""

import sys
import xml.etree.ElementTree

import pytest
from test_planning import report

from neuronbert.errors import MissingLibrary, OutputError, UsageError
from neuronbert.hardware.device_model import BERT_BASE
from neuronbert.planner import picture
from neuronbert.planner.picture import refuse_undrawable, write_picture
from neuronbert.planner.planning import plan

SIZES = ["inf1.xlarge", "g6.xlarge", "p5.4xlarge", "c5.xlarge"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    measured = report(tmp_path_factory.mktemp("plan"), throughput_avg=900.0, latency_ms_p50=20.0, latency_ms_p95=23.0)
    return plan(
        BERT_BASE, sequence_length=128, throughput=500, latency_p95_ms=90, instance_type=SIZES, measured=measured
    )


def texts_of(found):
    pytest.importorskip("matplotlib")
    drawn = picture._figure(found)
    axes, beside = drawn.axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    return [text.get_text() for text in drawn.texts], legend, axes, beside


def test_devices_and_sources_have_marks_of_their_own(found):
    _, legend, axes, _ = texts_of(found)
    assert legend == ["Inferentia, predicted", "CPU, measured", "GPU, predicted", "least cost at each latency",
                      "p95 allowed", "published by others"]  # fmt: skip
    counts = [len(one.get_offsets()) for one in axes.collections]
    assert counts[:3] == [
        sum((one.device, one.measured) == kind for one in found.ranked)
        for kind in (("inf1", False), ("cpu", True), ("gpu", False))
    ]


def test_the_frontier_and_every_published_figure_are_named_below_with_their_sources(found):
    lines, _, axes, beside = texts_of(found)
    below = " ".join(" ".join(lines).split())
    for number, one in enumerate(found.frontier, 1):
        assert f"{number} {one.name}, " in below
    for letter, one in zip("abcdefghijkl", found.published):
        assert f"{letter} {one.row.name}: " in below and " ".join(one.row.source.split()) in below
    letters = {text.get_text() for part in (axes, beside) for text in part.texts}
    assert letters == {*"abcdefghijkl"[: len(found.published)], *map(str, range(1, len(found.frontier) + 1))}
    assert "Prices: us-east-1, 20" in below


def test_a_line_of_the_key_stays_in_the_picture(found):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = picture._figure(found)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    width, height = drawn.bbox.width, drawn.bbox.height
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in drawn.texts]
    assert all(box.x1 <= width and box.y0 >= 0 for box in boxes)
    below = drawn.axes[0].get_legend().get_window_extent(canvas.get_renderer())
    assert max(box.y1 for box in boxes) <= below.y0 and height > 0


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".SVG", b"<?xml")])
def test_it_is_written_as_its_suffix_says(found, tmp_path, suffix, start):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"frontier{suffix}"
    write_picture(found, path)
    assert path.read_bytes().startswith(start)
    if suffix == ".SVG":
        xml.etree.ElementTree.parse(path)


def test_names_are_no_formulas(found, tmp_path):
    pytest.importorskip("matplotlib")
    write_picture(found._replace(source="./$a_$b^{"), tmp_path / "frontier.png")


@pytest.mark.parametrize(
    "name, why",
    [("plan.pdf", "not drawn as .pdf.*\n.*.png or .svg"), ("plan", "a file without a suffix"),
     ("nowhere/plan.png", "no folder .*nowhere.*\n.*mkdir -p")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_early(tmp_path, name, why):
    with pytest.raises(UsageError, match=why):
        refuse_undrawable(tmp_path / name)


def test_without_matplotlib_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingLibrary, match=r"matplotlib is not installed.*\n.*neuronbert\[plan"):
        refuse_undrawable(tmp_path / "plan.png")


def test_a_plan_without_prices_has_no_picture(found, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="needs prices.*\n.*--prices"):
        write_picture(found._replace(ranked=[]), tmp_path / "plan.png")


def test_a_place_that_cannot_be_written(found, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "plan.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_picture(found, tmp_path / "plan.png")
