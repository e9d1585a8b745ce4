"""A plan as a picture: cost against p95, inf1, CPUs and GPUs in marks of their own, the frontier, published figures.

frontier.py has what is drawn; matplotlib (the extra ``plan``) draws it, and the file's suffix says as what.
"""

import io
import string
import textwrap
from pathlib import Path
from typing import Any, Iterable, List, Sequence, Tuple, Union

from neuronbert.artifact.files import output_errors, refuse_target, replace_file
from neuronbert.errors import UsageError, counted
from neuronbert.hardware.libraries import optional_imports, require_libraries
from neuronbert.planner.configurations import CPU, DEVICE_WORDS, DEVICES, GPU, INF1, Configuration
from neuronbert.planner.explanation import figure, spread
from neuronbert.planner.frontier import PublishedCost
from neuronbert.planner.planning import Plan

SUFFIXES = (".png", ".svg")
MARKS = {INF1: ("o", "#2563eb"), CPU: ("s", "#d97706"), GPU: ("^", "#059669")}
PUBLISHED_COLOUR = "#7c3aed"
INK, SOFT, LINE = "#1c2430", "#5b6675", "#d5dbe3"
WIDTH_INCHES, PLOT_INCHES, LINE_INCHES, MARGIN_INCHES = 11.0, 6.0, 0.165, 0.3
LINE_CHARACTERS = 182  # of the key below the picture
DOTS_PER_INCH = 130
# In points: where the number of a mark stands, and its letter.
NUMBER_OFFSET, LETTER_OFFSET = (6, 5), (-2.5, 7)


def refuse_undrawable(path: Union[str, Path]) -> None:
    """UsageError or MissingLibrary, before anything is planned, for a picture that could not be made."""
    refuse_target(path, "picture", "drawn", SUFFIXES)
    require_libraries("matplotlib")


def write_picture(plan: Plan, path: Union[str, Path]) -> None:
    """Draw ``plan`` as .png or .svg.

    Raises UsageError for any other suffix and for a plan without prices, MissingLibrary without matplotlib, OutputError
    for a place that cannot be written.
    """
    refuse_undrawable(path)
    if not plan.frontier:
        raise UsageError("a picture of costs needs prices, and no configuration has one", hint="--prices FILE.json")
    target, drawn = Path(path), io.BytesIO()
    form = target.suffix.lower()[1:]
    _figure(plan).savefig(drawn, format=form, dpi=DOTS_PER_INCH, metadata={"Date": None} if form == "svg" else None)
    with output_errors(target):
        replace_file(target, drawn.getvalue())


@optional_imports("plan")
def _figure(plan: Plan) -> Any:
    from matplotlib.figure import Figure

    keys = _keys(plan)
    height = PLOT_INCHES + MARGIN_INCHES + LINE_INCHES * len(keys)
    whole = Figure(figsize=(WIDTH_INCHES, height), facecolor="white")
    bottom = (height - PLOT_INCHES + 0.8) / height
    grid = {"width_ratios": [6, 1], "wspace": 0.03, "left": 0.07, "right": 0.985, "top": 1 - 0.5 / height}
    axes, beside = whole.subplots(1, 2, sharey=True, gridspec_kw={**grid, "bottom": bottom})
    _draw_configurations(axes, plan)
    _draw_published(axes, beside, plan.published)
    _dress(whole, axes, beside, plan)
    for number, (text, colour) in enumerate(keys):
        at = (height - PLOT_INCHES - 0.1 - LINE_INCHES * (number + 1)) / height
        whole.text(0.012, at, text, fontsize=7.6, color=colour, parse_math=False)
    return whole


def _draw_configurations(axes: Any, plan: Plan) -> None:
    for device in DEVICES:
        for measured in (True, False):
            some = [one for one in plan.ranked if (one.device, one.measured) == (device, measured)]
            points = [(one.p95_ms, one.usd_per_million) for one in some if one.usd_per_million is not None]
            if points:
                mark, colour = MARKS[device]
                label = f"{DEVICE_WORDS[device]}, {'measured' if measured else 'predicted'}"
                face = colour if measured else "white"
                axes.scatter(*zip(*points), marker=mark, s=34, facecolor=face, edgecolor=colour, label=label, zorder=3)
    corners = [(one.p95_ms, one.usd_per_million or 0.0) for one in plan.frontier]
    axes.step(*zip(*corners), where="post", color=INK, linewidth=1.2, zorder=2, label="least cost at each latency")
    for number, one in enumerate(plan.frontier, 1):
        x, y = corners[number - 1]
        axes.plot(one.p95_range_ms, (y, y), color=MARKS[one.device][1], linewidth=3, alpha=0.3, zorder=2)
        _name(axes, str(number), (x, y), NUMBER_OFFSET, INK)
    if plan.target.latency_p95_ms:
        axes.axvline(plan.target.latency_p95_ms, color=SOFT, linewidth=1, linestyle="--", zorder=1, label="p95 allowed")


def _draw_published(axes: Any, beside: Any, published: Sequence[PublishedCost]) -> None:
    """Those with a latency among the configurations, the others beside them, by cost alone."""
    style = {"marker": "*", "s": 70, "color": PUBLISHED_COLOUR, "zorder": 4}
    axes.scatter([], [], label="published by others", **style)
    places, taken = sum(one.row.p95_ms is None for one in published) + 1, 0
    for letter, one in zip(string.ascii_lowercase, published):
        taken += one.row.p95_ms is None
        where, x = (beside, taken / places) if one.row.p95_ms is None else (axes, one.row.p95_ms)
        where.scatter([x], [one.usd_per_million], **style)
        _name(where, letter, (x, one.usd_per_million), LETTER_OFFSET, PUBLISHED_COLOUR)


def _name(axes: Any, text: str, point: Tuple[float, float], offset: Tuple[float, float], colour: str) -> None:
    axes.annotate(text, point, offset, textcoords="offset points", fontsize=8.5, fontweight="bold", color=colour,
                  zorder=5)  # fmt: skip


@optional_imports("plan")
def _dress(whole: Any, axes: Any, beside: Any, plan: Plan) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    target = plan.target
    load = f"{figure(target.throughput_per_s, 4)} sequences/s" if target.throughput_per_s else "one instance each"
    axes.set_title(
        f"Cost of {plan.source}: {counted(target.sequence_length, 'token')}, {load}, {target.headroom:.0%} kept free",
        loc="left", fontsize=11, color=INK, parse_math=False,
    )  # fmt: skip
    beside.set_title("no latency\npublished", fontsize=8, color=SOFT)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("p95 of a request, ms (waiting included)", color=INK)
    axes.set_ylabel("USD for a million sequences", color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    beside.set_xlim(0, 1)
    beside.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False, which="both")
    for one in (axes, beside):
        one.grid(True, which="major", color=LINE, linewidth=0.6)
        one.set_axisbelow(True)
        for spine in one.spines.values():
            spine.set_color(LINE)
    beside.grid(False, axis="x")
    # Below the axes, where it hides nothing.
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncol=7, fontsize=8, frameon=False, handletextpad=0.4,
                columnspacing=1.2, borderpad=0)  # fmt: skip


def _keys(plan: Plan) -> List[Tuple[str, str]]:
    """The lines below the picture, with their colours: what the numbers and the letters are, and what it rests on."""
    lines = [("Least cost at each latency (a bar is where p95 is likely to be):", INK)]
    lines += _wrapped((f"{number}  {_of(one)}" for number, one in enumerate(plan.frontier, 1)), INK)
    lines += [("Published by others, with their own programs, each for the model and length named:", PUBLISHED_COLOUR)]
    published = (f"{letter}  {_of_published(one)}" for letter, one in zip(string.ascii_lowercase, plan.published))
    lines += _wrapped(published, PUBLISHED_COLOUR)
    notes = [f"Prices: {'; '.join(_prices(plan))}."]
    if any(one.device == GPU and not one.measured for one in plan.ranked):
        notes.insert(
            0, "Predicted latencies of GPUs leave out what the host adds to a batch; those of Inferentia have it."
        )
    return lines + _wrapped(notes, SOFT)


def _wrapped(texts: Iterable[str], colour: str) -> List[Tuple[str, str]]:
    indent = "     "
    return [
        (line, colour)
        for text in texts
        for line in textwrap.wrap(text, LINE_CHARACTERS, subsequent_indent=indent, break_on_hyphens=False)
    ]


def _of(one: Configuration) -> str:
    assert one.usd_per_million is not None
    low, high = one.p95_range_ms
    p95 = f"{figure(one.p95_ms)} ms" + (f" (likely {spread(low, high)})" if low < high else "")
    extrapolated = f", extrapolated: {one.extrapolated}" if one.extrapolated else ""
    how = "measured" if one.measured else "predicted" + extrapolated
    return f"{one.name}, {counted(one.instances, 'instance')}: {one.usd_per_million:.3g} USD, p95 {p95}; {how}"


def _of_published(one: PublishedCost) -> str:
    rate = f"{figure(one.row.per_gpu_per_s)}/s of a GPU"
    return f"{one.row.name}: {one.usd_per_million:.3g} USD {one.basis}, {rate}. {one.row.source}"


def _prices(plan: Plan) -> List[str]:
    used = [*(one.price for one in plan.ranked), *(one.price for one in plan.published)]
    return list(dict.fromkeys(", ".join(price[1:]) for price in used if price))
