"""Reports: the point of a measurement, the four forms, comparison, and the page in a real browser."""

import csv
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from made_reports import document, load_result, point

from neuronbert.benchmark import report
from neuronbert.benchmark.load import LoadResult
from neuronbert.errors import InputError, UsageError
from neuronbert.planner.planning import plan


def test_a_point_has_figures_intervals_cost_and_the_samples_behind_them():
    one = point(6, 8)
    assert set(report.COLUMNS) <= set(one) and len(one["samples_ms"]) == 1200
    low, high = one["intervals"]["latency_ms_p95"]
    assert low <= one["latency_ms_p95"] <= high
    assert one["latency_ms_p95"] == pytest.approx(np.percentile(one["samples_ms"], 95), rel=1e-4)
    assert one["cost_per_1m_inf"] == pytest.approx(0.228 / one["throughput_avg"] / 3600 * 1e6)
    assert one["price"]["region"] == "us-east-1" and one["price"]["date"]


def test_a_short_measurement_gives_no_p99_and_a_broken_one_no_figures():
    setting = {"batch_size": 1}
    assert report.measured_point(setting, load_result(10, 5, count=100))["latency_ms_p99"] is None
    nothing = report.measured_point(setting, LoadResult([], [], False, 1.0, errors={"Overloaded": 3}))
    assert nothing["latency_ms_p50"] is None and nothing["errors"] == 3 and nothing["cost_per_1m_inf"] is None
    json.loads(report.as_json(report.document_of([nothing], command="", artifact={}, environment={})))


def test_the_knee_is_marked_for_each_configuration():
    points = [point(batch, 8, variant=variant) for variant in ("a", "b") for batch in (1, 2, 4, 6, 8)]
    report.mark_knees(points)
    assert [(one["variant"], one["batch_size"]) for one in points if one["knee"]] == [("a", 6), ("b", 6)]
    alone = [point(4, 8)]
    report.mark_knees(alone)
    assert not alone[0]["knee"]


def test_cost_at_the_latency_target_stands_beside_that_at_saturation():
    points = [point(6, concurrency) for concurrency in (1, 2, 4, 8, 16)]
    latencies = sorted(one["latency_ms_p95"] for one in points)
    within = report.document_of(points, command="", artifact={}, environment={}, latency_p95_ms=latencies[2])
    chosen = max(
        (one for one in points if one["latency_ms_p95"] <= latencies[2]), key=lambda one: one["throughput_avg"]
    )
    assert [one for one in points if one["at_target"]] == [chosen]
    text = report.as_markdown(within)
    assert "* saturated: " in text and f"* p95 within {latencies[2]:g} ms: {chosen['throughput_avg']:.4g}/s" in text
    never = report.document_of(points, command="", artifact={}, environment={}, latency_p95_ms=0.001)
    assert "* p95 within 0.001 ms: no point that was measured" in report.as_markdown(never)


def test_json_comes_back_as_it_was(tmp_path):
    made = document()
    report.write_report(made, tmp_path / "r.json")
    assert report.read_report(tmp_path / "r.json") == made


def test_the_planner_reads_it(tmp_path, monkeypatch):
    made = report.document_of(
        [point(8, 16, instance_type="c5.xlarge", engine="openvino", mode=None)], command="", artifact={}, environment={}
    )
    report.write_report(made, tmp_path / "r.json")
    (tmp_path / "config.json").write_text(json.dumps(
        {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    ))  # fmt: skip
    found = plan(str(tmp_path), sequence_length=128, throughput=10, measured=tmp_path / "r.json")
    assert any(one.measured for one in found.ranked)


def test_csv_has_neuronperfs_names_and_every_point():
    made = document()
    rows = list(csv.DictReader(io.StringIO(report.as_csv(made))))
    assert len(rows) == 25 and tuple(rows[0]) == report.COLUMNS
    assert {"throughput_avg", "latency_ms_p95", "n_models", "workers_per_model", "pipeline_size", "batch_size",
            "cost_per_1m_inf", "instance_type", "model_filename"} <= set(rows[0])  # fmt: skip
    assert float(rows[0]["throughput_avg"]) == pytest.approx(made["points"][0]["throughput_avg"])


def test_markdown_is_one_table_and_says_price_and_command():
    text = report.as_markdown(document())
    lines = text.splitlines()
    assert len({line.count("|") for line in lines[:27]}) == 1
    assert "0.228 USD/h in us-east-1, 2024-09" in text and "`neuronbert benchmark qa-artifact`" in text


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere():
    made = document()
    made["command"] = "neuronbert benchmark '</script><script>alert(1)</script><!--'"
    page = report.as_html(made)
    assert "__REPORT__" not in page and "<script>alert" not in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page) and "@import" not in page and "fetch(" not in page
    embedded = re.search(r'id="report">(.*?)</script>', page, re.S).group(1)
    assert json.loads(embedded) == made


def test_an_unknown_form_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match=r"\.pdf.*\n.*\.html"):
        report.write_report(document(), tmp_path / "r.pdf")


@pytest.mark.parametrize(
    "text, why",
    [("{", "not JSON"), ("{}", "not a report"), ("[]", "not a report"),
     ('{"kind": "neuronbert-benchmark", "schema_version": 9}', "schema 9")],
)  # fmt: skip
def test_a_file_that_is_no_report_is_refused(tmp_path, text, why):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=why):
        report.read_report(tmp_path / "x.json")


# ---------------------------------------------------------------------------- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
# Reports, from inside the page, what a person would see of it.
PROBE = """<script>addEventListener("load", () => { document.querySelectorAll(".point")[7].dispatchEvent(
new MouseEvent("click")); const wide = [...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll")
&& one.getBoundingClientRect().right > innerWidth + 1).map(one => one.tagName + "#" + one.id);
const cut = [...document.querySelectorAll("svg text")].filter(one => { const box = one.getBoundingClientRect(),
own = one.ownerSVGElement.getBoundingClientRect(); return box.right > own.right + 1 || box.left < own.left - 1; })
.map(one => one.textContent);
const made = document.createElement("pre"); made.id = "probe"; made.textContent = JSON.stringify({wide, cut,
points: document.querySelectorAll(".point").length, rows: document.querySelectorAll("#table tbody tr").length,
bars: document.querySelectorAll("#cost rect").length, histogram: document.querySelectorAll("#detail rect").length,
texts: [...document.querySelectorAll("svg text")].map(one => one.textContent), width: innerWidth});
parent.document.body.appendChild(made); });</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to look at the page with")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(tmp_path, width):
    # A window cannot be as narrow as a phone; a frame can.
    framed = html.escape(report.as_html(document()) + PROBE)
    page = tmp_path / "frame.html"
    page.write_text(f'<body><iframe srcdoc="{framed}" style="width:{width}px;height:844px;border:0"></iframe>')
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--dump-dom"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S).group(1)))
    assert seen["width"] == width
    assert seen["points"] == seen["rows"] == 25 and seen["bars"] == 5 and seen["histogram"] == 40
    assert {"throughput (sequences/s)", "latency p95 (ms)", "knee: batch 6"} <= set(seen["texts"])
    assert seen["wide"] == [] and seen["cut"] == []
