"""The chain as a picture: a bar from each step's rate to the next one's, with its factor. matplotlib draws it."""

import io
import textwrap
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Sequence

from neuronbert.artifact.files import output_errors, replace_file
from neuronbert.hardware.libraries import optional_imports
from neuronbert.planner.explanation import figure
from neuronbert.planner.picture import DOTS_PER_INCH, INK, LINE, SOFT
from neuronbert_tools.chain.summary import f1_text, machine_text

Facts = Mapping[str, Any]  # JSON: a report, or a part of one

FIRST, GAIN, LOSS = "#5b6675", "#2563eb", "#d97706"
WIDTH_INCHES, HEIGHT_INCHES = 11.0, 6.6
BAR_WIDTH = 0.62
LABEL_CHARACTERS = 15
ROOM = 2.2  # the axis begins so many times below the first rate, and ends as far above the highest


class Bar(NamedTuple):
    """A step between two rates; ``end`` is its own."""

    start: float
    end: float
    taken: bool

    @property
    def colour(self) -> str:
        return GAIN if self.end >= self.start else LOSS


def bars_of(steps: Sequence[Facts]) -> List[Bar]:
    """A bar for each step: from the rate of the last one that was taken, the first from the end of the axis."""
    bars: List[Bar] = []
    level = steps[0]["questions_per_s"]["median"] / ROOM
    for step in steps:
        bars.append(Bar(level, step["questions_per_s"]["median"], step["taken"]))
        level = bars[-1].end if step["taken"] else level
    return bars


def write_waterfall(report: Facts, path: Path) -> None:
    """Draw the steps of a report as .svg or .png; OutputError for a place that cannot be written."""
    drawn, form = io.BytesIO(), path.suffix.lower()[1:]
    _figure(report).savefig(drawn, format=form, dpi=DOTS_PER_INCH, metadata={"Date": None} if form == "svg" else None)
    with output_errors(path):
        replace_file(path, drawn.getvalue())


@optional_imports("plan")
def _figure(report: Facts) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    steps, bars = report["steps"], bars_of(report["steps"])
    whole = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), facecolor="white")
    axes = whole.add_axes((0.065, 0.305, 0.92, 0.615))
    for number, (step, bar) in enumerate(zip(steps, bars)):
        _draw(axes, number, step, bar, is_last=number == len(steps) - 1)
    axes.set_yscale("log")
    axes.set_ylim(bars[0].start, max(bar.end for bar in bars) * ROOM)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("questions a second", color=INK)
    axes.set_xticks(range(len(steps)), _below(steps), fontsize=8.5, color=INK, linespacing=1.35)
    axes.set_xlim(-0.6, len(steps) - 0.4)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.grid(True, axis="y", which="major", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    axes.set_title(_title(report), loc="left", fontsize=12, color=INK, pad=10, parse_math=False)
    whole.text(0.012, 0.02, _caption(report), fontsize=7.8, color=SOFT, linespacing=1.5, parse_math=False)
    return whole


def _draw(axes: Any, number: int, step: Facts, bar: Bar, is_last: bool) -> None:
    low, high = sorted((bar.start, bar.end))
    first = step["factor"] is None
    colour = FIRST if first else bar.colour
    # What was not taken is an outline: the next bar begins where this one does.
    style = {"color": colour} if bar.taken else {"facecolor": "white", "edgecolor": colour, "linestyle": "--"}
    axes.bar(number, high - low, BAR_WIDTH, bottom=low, linewidth=1.2, zorder=3, **style)
    level = bar.end if bar.taken else bar.start
    if not is_last:
        until = number + 1 + BAR_WIDTH / 2
        axes.plot((number - BAR_WIDTH / 2, until), (level, level), color=SOFT, linewidth=0.8, zorder=2)
    rate = f"{figure(bar.end)}/s"
    factor = "" if first else f"× {step['factor']['median']:.2f}"
    for text, above_points, size, weight in ((rate, 4, 8.5, "normal"), (factor, 16, 11, "bold")):
        axes.annotate(text, (number, high), (0, above_points), textcoords="offset points", ha="center", fontsize=size,
                      fontweight=weight, color=colour if weight == "bold" else INK, zorder=5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip


def _below(steps: Sequence[Facts]) -> List[str]:
    """The lines below each bar, figures beside figures."""
    titles = [step["title"] + ("" if step["taken"] else " (not taken)") for step in steps]
    wrapped = [textwrap.wrap(title, LABEL_CHARACTERS, break_long_words=False) for title in titles]
    most = max(map(len, wrapped))
    figures = [[f"F1 {f1_text(step['f1'])}", f"p50 {figure(step['latency_ms']['p50'])} ms"] for step in steps]
    return ["\n".join([*lines, *[""] * (most - len(lines) + 1), *own]) for lines, own in zip(wrapped, figures)]


def _title(report: Facts) -> str:
    steps = report["steps"]
    before = report["goals"][0]["value"]
    return (
        f"{steps[-1]['factor_of_first']['median']:.1f} times the questions a second of the first step, "
        f"{before:.1f} times before the cache"
    )


def _caption(report: Facts) -> str:
    asked = report["workload"]
    return (
        f"{asked['data']}, {asked['questions']} questions; medians of {asked['rounds']} rounds in turns. F1 of all "
        "questions (- of random weights), p50 of a question that is asked alone. Logarithmic scale.\n"
        + machine_text(report["machine"], report["threads"])
    )
