"""A report as one HTML page that needs no network: report.html with the tables of tables.py filled in.

The tables and the facts are plain HTML; only the curves, the costs and the sorting need the page's script.
"""

import html
import json
import re
from pathlib import Path
from typing import Any, Dict, List

from neuronbert.benchmark.naming import Names, load_of, sentences
from neuronbert.benchmark.report import Document, curves_of
from neuronbert.benchmark.tables import (
    Cell,
    Facts,
    PointTable,
    machine_facts,
    marks_of,
    measured_facts,
    point_tables,
    price_sentences,
    title_of,
    warnings_of,
)

TEMPLATE_PATH = Path(__file__).with_name("report.html")


def as_html(document: Document) -> str:
    """One self-contained page: the result, the curves, costs, tables, the machine, the command, the samples."""
    points = document["points"]
    parts = {
        "TITLE": html.escape(f"Benchmark of {title_of(document)}"),
        "SUBTITLE": html.escape(" · ".join([*Names(points).shared, document["created_at"][:10]])),
        "RESULT": "".join(
            f"<p>{html.escape(sentence)}</p>" for sentence in sentences(points, document.get("latency_target_p95_ms"))
        ),
        "WARNINGS": "".join(f"<p>{html.escape(warning)}</p>" for warning in warnings_of(document)),
        "PRICE": html.escape("; ".join(price_sentences(points))),
        "TABLES": "\n".join(_points(table) for table in point_tables(document)),
        "MEASURED": _facts(measured_facts(document)),
        "MACHINE": _facts(machine_facts(document)),
        "COMMAND": html.escape(str(document["command"])),
        "CURVES": _data(curves(document)),
        "REPORT": _data(document),
    }
    # In one pass, so that what is filled in is never taken for a place to fill.
    return re.sub("__([A-Z]+)__", lambda found: parts[found[1]], TEMPLATE_PATH.read_text(encoding="utf-8"))


def curves(document: Document) -> List[Dict[str, Any]]:
    """The curves to draw: a name, the indices of its points, and what to call each point and its load."""
    points, names = document["points"], Names(document["points"])
    found = curves_of(points)
    several = len({curve[0]["offered_qps"] is None for curve in found}) > 1
    index_of = {id(point): index for index, point in enumerate(points)}
    return [
        {
            "name": names.configuration(curve[0]) + (_kind(curve[0]["offered_qps"] is None) if several else ""),
            "points": [index_of[id(point)] for point in curve],
            "loads": [load_of(point) for point in curve],
            "marks": [marks_of(point) for point in curve],
        }
        for curve in found
    ]


def _kind(waits: bool) -> str:
    return ", clients that wait" if waits else ", requests that come"


def _data(value: object) -> str:
    # "</script>" or "<!--" within the data would end or open an element of the page.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _points(table: PointTable) -> str:
    """A table that becomes one card a row where the screen is narrow: each cell knows its heading."""
    head = "".join(f"<th scope=col{_if_text(title)}>{_heading(title, unit)}</th>" for title, unit in table.headings)
    rows = "\n".join(
        "<tr>" + "".join(_cell(cell, title) for cell, title in zip(row, table.titles)) + "</tr>" for row in table.rows
    )
    return (
        f"<h2>{html.escape(table.title)}</h2>\n<table class=points><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table>\n"
        f"<details><summary>What the columns say</summary>{_facts(table.meanings)}</details>"
    )


def _if_text(title: str) -> str:
    """An attribute for columns of words, which begin at the left; figures end at the right."""
    return " data-text" if title in ("configuration", "load", "") else ""


def _heading(title: str, unit: str) -> str:
    return html.escape(title) + (f" <small>{html.escape(unit)}</small>" if unit else "")


def _cell(cell: Cell, title: str) -> str:
    detail = f"<small>{html.escape(cell.detail)}</small>" if cell.detail else ""
    return f'<td{_if_text(title)} data-title="{html.escape(title)}">{html.escape(cell.text)}{detail}</td>'


def _facts(facts: Facts) -> str:
    rows = "\n".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts
    )
    return f"<table class=facts><tbody>{rows}</tbody></table>"
