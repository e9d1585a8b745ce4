"""What ``neuronbert benchmark`` prints: a table that fits 80 characters, then the best point in one sentence."""

import textwrap
from itertools import zip_longest
from typing import Any, Iterator, List, Mapping, Sequence

from neuronbert.benchmark.columns import figure
from neuronbert.benchmark.naming import Names, best_points, load_of, sentences
from neuronbert.benchmark.report import Document
from neuronbert.benchmark.tables import price_sentences
from neuronbert.errors import counted

WIDTH = 80  # characters
GAP = "  "
HEADER = ("configuration", "load", "answers/s", "p50 ms", "p95 ms", "")
# Characters of a column at most; what has more goes on in the next line.
WIDEST = (25, 14, 9, 8, 8, 6)


def benchmark_text(document: Document) -> str:
    """The report for a person at a terminal; its other columns are in the files that --report writes."""
    points, limit = document["points"], document.get("latency_target_p95_ms")
    names = Names(points)
    best = [point for point, _ in best_points(points, limit)]
    rows = [_cells(names, point, any(point is one for one in best)) for point in points]
    paragraphs = [
        textwrap.fill(", ".join(names.shared), WIDTH),
        "\n".join(_lines([HEADER, *rows])),
        "\n".join(textwrap.fill(f"Cost: {price}.", WIDTH) for price in price_sentences(points)),
        "\n".join(textwrap.fill(sentence, WIDTH) for sentence in sentences(points, limit)),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _cells(names: Names, point: Mapping[str, Any], is_best: bool) -> List[str]:
    marks = [
        word
        for word, true in (
            ("best", is_best),
            ("knee", point["knee"] and not is_best),
            (counted(point["errors"] or 0, "error"), point["errors"]),
        )
        if true
    ]
    return [
        names.configuration(point),
        load_of(point),
        figure(point["throughput_avg"] or 0),
        *("–" if point[name] is None else figure(point[name]) for name in ("latency_ms_p50", "latency_ms_p95")),
        ", ".join(marks),
    ]


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as columns no wider than WIDEST; numbers, which all but the first two and the last hold, to the right."""
    wrapped = [[textwrap.wrap(cell, width) or [""] for cell, width in zip(row, WIDEST)] for row in rows]
    widths = [max(len(line) for row in wrapped for line in row[column]) for column in range(len(HEADER))]
    for row in wrapped:
        for line in zip_longest(*row, fillvalue=""):
            cells = [
                cell.ljust(width) if column in (0, 1, len(HEADER) - 1) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths))
            ]
            yield GAP.join(cells).rstrip()
