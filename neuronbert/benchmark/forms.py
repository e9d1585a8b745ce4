"""The four forms of a report: JSON with the raw samples, CSV, Markdown, and one HTML page (page.py)."""

import csv
import io
import json
from pathlib import Path
from typing import Sequence, Union

from neuronbert.artifact.files import output_errors, refuse_target, replace_file
from neuronbert.benchmark.columns import COLUMNS
from neuronbert.benchmark.naming import sentences
from neuronbert.benchmark.page import as_html
from neuronbert.benchmark.report import Document
from neuronbert.benchmark.tables import machine_facts, measured_facts, point_tables, title_of, warnings_of


def as_json(document: Document) -> str:
    """Everything, the raw samples included."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(document: Document) -> str:
    """One line for each point, by neuronperf's names; an empty field for what was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document["points"])
    return text.getvalue()


def as_markdown(document: Document) -> str:
    """The result in a sentence, the points as tables, and what the figures rest on."""
    points = document["points"]
    blocks = [f"# Benchmark of {_escaped(title_of(document))}"]
    blocks += [f"**{_escaped(sentence)}**" for sentence in sentences(points, document.get("latency_target_p95_ms"))]
    blocks += [f"_{_escaped(warning)}_" for warning in warnings_of(document)]
    for table in point_tables(document):
        rows = [[cell.text for cell in row] for row in table.rows]
        blocks += [f"## {table.title}", _markdown_table(table.titles, rows)]
    blocks += ["## What was measured", _markdown_table(["", ""], measured_facts(document))]
    blocks += ["## Machine", _markdown_table(["", ""], machine_facts(document))]
    return "\n\n".join([*blocks, "## How to repeat this", f"```\n{document['command']}\n```"]) + "\n"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


WRITERS = {".json": as_json, ".csv": as_csv, ".md": as_markdown, ".html": as_html}


def refuse_unwritable(path: Union[str, Path]) -> None:
    """UsageError, before anything is measured, for a report that could not be written."""
    refuse_target(path, "report", "written", WRITERS)


def write_report(document: Document, path: Union[str, Path]) -> None:
    """Write the form that the suffix of ``path`` names.

    Raises UsageError for any other suffix, OutputError for a place that cannot be written.
    """
    refuse_unwritable(path)
    target = Path(path)
    with output_errors(target):
        replace_file(target, WRITERS[target.suffix.lower()](document))
