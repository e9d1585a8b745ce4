"""The four forms of a report, and what they say to a person."""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest
from made_reports import document, point

from neuronbert.benchmark import forms, page, report, tables
from neuronbert.benchmark.columns import COLUMNS, EXPENSE, LOAD, LOADGEN, MARKS, SERVER, SETTING, SPEED
from neuronbert.benchmark.report_file import read_report
from neuronbert.errors import UsageError
from neuronbert.hardware.machine import environment


def test_every_column_has_a_place_and_says_what_it_means():
    assert sorted([*SETTING, *LOAD, *SPEED, *EXPENSE, *SERVER, *LOADGEN, *MARKS]) == sorted(COLUMNS)
    titles = [(column.title, column.unit) for column in COLUMNS.values()]
    assert len(set(titles)) == len(titles) and not any("_" in title for title, _ in titles)
    assert all(column.meaning.endswith(".") for column in COLUMNS.values())


def test_json_comes_back_as_it_was(tmp_path):
    made = document()
    forms.write_report(made, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == made


def test_csv_has_neuronperfs_names_and_every_point():
    made = document()
    rows = list(csv.DictReader(io.StringIO(forms.as_csv(made))))
    assert len(rows) == 25 and tuple(rows[0]) == tuple(COLUMNS)
    assert {"throughput_avg", "latency_ms_p95", "n_models", "workers_per_model", "pipeline_size", "batch_size",
            "cost_per_1m_inf", "instance_type", "model_filename"} <= set(rows[0])  # fmt: skip
    assert float(rows[0]["throughput_avg"]) == pytest.approx(made["points"][0]["throughput_avg"])


def test_csv_begins_with_the_columns_that_a_reader_of_neuronperf_knows():
    known = (
        "model_filename,instance_type,n_models,workers_per_model,pipeline_size,batch_size,sequence_length,"
        "throughput_avg,latency_ms_p50,latency_ms_p90,latency_ms_p95,latency_ms_p99,cost_per_1m_inf"
    )
    assert forms.as_csv(document()).startswith(known)


def test_markdown_says_the_result_first_then_tables_in_words():
    lines = forms.as_markdown(document()).splitlines()
    assert lines[0] == "# Benchmark of qa-artifact" and re.match(r"\*\*batch \d, \d+ clients?: .*the knee", lines[2])
    assert len([line for line in lines if re.match(r"\| batch \d \| \d+ clients? \|", line)]) == 2 * 25
    assert "0.228 USD/h in us-east-1, 2024-09" in "".join(lines) and "neuronbert benchmark qa-artifact" in lines
    assert not any(re.search(rf"\b{name}\b", "\n".join(lines)) for name in COLUMNS if "_" in name)


def test_markdown_keeps_its_tables_whole_whatever_the_names_hold():
    made = document(variant="a|b", engine="x|y")
    made["artifact"] = {"name": "one\ntwo|three"}
    lines = [line for line in forms.as_markdown(made).splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
    assert "one two\\|three" in forms.as_markdown(made)


def test_cost_at_the_latency_target_stands_beside_that_at_saturation():
    points = [point(6, concurrency) for concurrency in (1, 2, 4, 8, 16)]
    limit = sorted(one["latency_ms_p95"] for one in points)[2]
    facts = tables.measured_facts(
        report.document_of(points, command="", artifact={}, environment={}, latency_p95_ms=limit)
    )
    costs = [text for name, text in facts if name == "cost"]
    assert costs[0].startswith("saturated: ") and costs[1].startswith(f"with p95 within {limit:g} ms: ")
    never = report.document_of(points, command="", artifact={}, environment={}, latency_p95_ms=0.001)
    assert ("cost", "with p95 within 0.001 ms: no point that was measured") in tables.measured_facts(never)


class Text(HTMLParser):
    """What a page says, without its style, scripts and data."""

    def __init__(self, text):
        super().__init__()
        self.said, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.said.append(data.strip())


def test_the_page_says_everything_in_words():
    made = document()
    made["environment"] = dict(environment(), libraries={"numpy": "2.1"}, something_new=5)
    read = Text(page.as_html(made))
    assert read.open == []
    said = "\n".join(filter(None, read.said))
    fields = [name for name in (*COLUMNS, *made["environment"]) if "_" in name]
    assert not re.search("|".join(["[{}]", *fields]), said), "JSON or the name of a field"
    assert {
        "Benchmark of qa-artifact",
        "Machine",
        "CPU",
        "numpy 2.1",
        "something new",
        "throughput",
        "per second",
    } <= set(read.said)
    for meaning in (COLUMNS[name].meaning for name in SPEED):
        assert meaning in said


def test_the_page_names_gpus_and_their_driver():
    made = document()
    gpu = {"name": "NVIDIA L4", "compute_capability": "8.9", "memory_bytes": 24 << 30}
    made["environment"] = dict(environment(), gpus=[gpu, gpu], nvidia_driver="570.86.15")
    said = Text(page.as_html(made)).said
    assert said[said.index("GPUs") + 1] == "2 × NVIDIA L4 (compute capability 8.9, 24.0 GiB)"
    assert said[said.index("NVIDIA driver") + 1] == "570.86.15"
    made["environment"].update(gpus=[], nvidia_driver=None)
    assert not {"GPUs", "NVIDIA driver"} & set(Text(page.as_html(made)).said)


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere():
    made = document()
    made["command"] = "neuronbert benchmark '</script><script>alert(1)</script><!--'"
    text = page.as_html(made)
    assert "__REPORT__" not in text and "<script>alert" not in text
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "@import" not in text and "fetch(" not in text
    embedded = re.search(r'id="report">(.*?)</script>', text, re.S).group(1)
    assert json.loads(embedded) == made


def test_what_a_report_holds_is_never_taken_for_a_part_of_the_page():
    made = document(variant="__REPORT__", engine="<b>&amp;", precision="__COMMAND__")
    made["artifact"]["name"] = "<i>__CURVES__</i>"
    text = page.as_html(made)
    assert html.escape("Benchmark of <i>__CURVES__</i>") in text and "<i>" not in text.split("<script")[0]
    assert html.escape("<b>&amp;-__COMMAND__") in text


def test_an_unknown_form_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match=r"\.pdf.*\n.*\.html"):
        forms.write_report(document(), tmp_path / "r.pdf")
