"""What a report says to a person, as tables and facts in words; forms.py and page.py write them down."""

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert.benchmark.columns import (
    COLUMNS,
    EXPENSE,
    LOADGEN,
    SERVER,
    SETTING,
    SPEED,
    figure,
    heading,
    text_of,
    with_unit,
)
from neuronbert.benchmark.naming import Names, load_of, measured_text
from neuronbert.benchmark.report import Document, Point
from neuronbert.errors import counted
from neuronbert.hardware.cuda import gpus_in_words
from neuronbert.hardware.prices import Price

Facts = List[Tuple[str, str]]  # what, and its value, in words


class Cell(NamedTuple):
    """What stands in a table; ``detail`` is its 95 % interval, where it has one."""

    text: str
    detail: str = ""


class PointTable(NamedTuple):
    """Some columns of all points; a heading is a title and its unit."""

    title: str
    headings: List[Tuple[str, str]]
    rows: List[List[Cell]]
    meanings: Facts

    @property
    def titles(self) -> List[str]:
        """The headings, each with its unit in brackets."""
        return [with_unit(title, unit) for title, unit in self.headings]


_GROUPS = (
    ("Throughput and latency", SPEED),
    ("Expense", EXPENSE),
    ("The server's own time", SERVER),
    ("MLPerf LoadGen", LOADGEN),
)


def point_tables(document: Document) -> List[PointTable]:
    """The points as tables that fit a page: what was reached, at what expense, and what LoadGen says, if asked."""
    points = document["points"]
    names = Names(points)
    tables = []
    for title, group in _GROUPS:
        columns = [name for name in group if any(point.get(name) is not None for point in points)]
        if columns:
            rows = [_row(names, point, columns, with_marks=group is SPEED) for point in points]
            headings = [("configuration", ""), ("load", ""), *map(heading, columns)]
            meanings = [(heading(name)[0], COLUMNS[name].meaning) for name in columns]
            tables.append(PointTable(title, headings + [("", "")] * (group is SPEED), rows, meanings))
    return tables


def _row(names: Names, point: Point, columns: Sequence[str], *, with_marks: bool) -> List[Cell]:
    cells = [Cell(names.configuration(point)), Cell(load_of(point))]
    cells += [Cell(text_of(name, point.get(name)), _interval(point, name)) for name in columns]
    return [*cells, Cell(", ".join(marks_of(point)))] if with_marks else cells


def _interval(point: Point, name: str) -> str:
    low, high = point.get("intervals", {}).get(name) or (None, None)
    return "" if low is None or high is None else f"{figure(max(low, 0.0))} – {figure(high)}"


def marks_of(point: Point) -> List[str]:
    """What is to be said of a point beside its figures."""
    marks = [
        ("knee", point.get("knee")),
        ("best at target", point.get("at_target")),
        (counted(point.get("errors") or 0, "error"), point.get("errors")),
        ("not steady", point.get("steady") is False),
    ]
    return [word for word, true in marks if true]


def measured_facts(document: Document) -> Facts:
    """What all points have in common, and what the figures rest on."""
    points, artifact, asked = document["points"], document["artifact"], document.get("asked", {})
    facts = [
        ("artifact", str(artifact.get("name") or "")),
        ("compiled from", str(artifact.get("source") or "")),
        ("fingerprint of the weights", str(artifact.get("fingerprint") or "")),
        *_server_facts(document.get("server") or {}),
    ]
    for name in SETTING[1:]:
        values = {point.get(name) for point in points}
        if len(values) == 1 and None not in values and name not in ("price_usd_per_hour", "price_region", "price_date"):
            title, unit = heading(name)
            facts.append((title, f"{text_of(name, *values)} {unit}".strip()))
    facts += [("cost", f"{name}: {text}") for name, text in _costs(document)]
    facts += [("cost", sentence) for sentence in price_sentences(points)]
    if any(point.get("offered_qps") for point in points):
        facts.append(("requests come", f"at random moments ({asked.get('request_distribution')})"
                      if asked.get("request_distribution") == "poisson" else "at even distances"))  # fmt: skip
    facts += [("questions", f"SHA-256 {asked['questions']}")] if asked.get("questions") else []
    facts += [("measured", f"{document['created_at']} with neuronbert {document['neuronbert_version']}")]
    return [(name, text) for name, text in facts if text]


def _server_facts(server: Mapping[str, Any]) -> Facts:
    """Which server was asked; nothing where it was an artifact."""
    known = {
        "url": "server",
        "neuronbert": "the server's neuronbert",
        "digest": "digest of the artifact",
        "timeout_ms": "deadline of a request, in ms",
    }
    return [(title, str(server[name])) for name, title in known.items() if server.get(name)]


def machine_facts(document: Document) -> Facts:
    """The machine and the libraries that the points were measured with; of a server those that asked."""
    known: Dict[str, Tuple[str, Callable[[Any], str]]] = {
        "cpu_model": ("CPU", str),
        "usable_cpus": ("CPUs that it may use", str),
        "physical_cores": ("physical cores", str),
        "cpu_flags": ("CPU features", ", ".join),
        "memory_bytes": ("memory", lambda count: f"{count / 2**30:.1f} GiB"),
        "gpus": ("GPUs", gpus_in_words),
        "nvidia_driver": ("NVIDIA driver", str),
        "machine": ("architecture", str),
        "os": ("operating system", str),
        "python": ("Python", str),
        "neuronbert": ("neuronbert", str),
        "libraries": ("libraries", lambda found: ", ".join(f"{name} {version}" for name, version in found.items())),
    }
    environment = document["environment"]
    facts = [("this is", "the machine that asked: of the server's nothing is known")] if document.get("server") else []
    facts += [(title, text(environment[name])) for name, (title, text) in known.items() if environment.get(name)]
    return facts + [(name.replace("_", " "), str(value)) for name, value in environment.items() if name not in known]


def warnings_of(document: Document) -> List[str]:
    """What a reader must know before believing a figure."""
    points = document["points"]
    emulated = any(point.get("emulated") for point in points) or document["artifact"].get("emulated")
    unsteady = sum(point.get("steady") is False for point in points)
    return [
        *(["EMULATED: timed on an emulator of the hardware, not on the hardware."] if emulated else []),
        *(
            [f"{unsteady} of {counted(len(points), 'point')} never became steady: no three seconds were within 10 %."]
            if unsteady
            else []
        ),
        *(f"{counted(count, 'point')} left out: {why}." for why, count in document.get("left_out", {}).items()),
    ]


def _costs(document: Document) -> Facts:
    """The highest throughput, and the highest within the latency target: no service runs at saturation."""
    points = [point for point in document["points"] if point["throughput_avg"] and point["cost_per_1m_inf"]]
    if not points:
        return []
    names, limit = Names(document["points"]), document.get("latency_target_p95_ms")
    wanted = [("saturated", points)]
    if limit is not None:
        wanted.append((f"with p95 within {limit:g} ms", [point for point in points if point.get("at_target")]))
    return [(name, _most(names, candidates)) for name, candidates in wanted]


def _most(names: Names, points: Sequence[Point]) -> str:
    if not points:
        return "no point that was measured"
    best = max(points, key=lambda point: point["throughput_avg"])
    cost = figure(best["cost_per_1m_inf"])
    return f"{cost} USD for a million, {measured_text(best)} ({names.point(best)})"


def price_sentences(points: Sequence[Point]) -> List[str]:
    """What must be said beside every figure in dollars: which price, of where and when."""
    prices = {point["instance_type"]: Price(**point["price"]) for point in points if point.get("price")}
    return [f"{name} {price.sentence()}" for name, price in prices.items()]


def title_of(document: Document) -> str:
    """What the report is about, in a word or two."""
    return str(document["artifact"].get("name") or document["artifact"].get("source") or "an artifact")
