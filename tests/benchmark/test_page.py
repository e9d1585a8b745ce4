"""The page in a real browser: what a person would see of it, on a desk and on a phone."""

import html
import json
import re
import shutil
import subprocess

import pytest
from made_reports import document

from neuronbert.benchmark import page as html_page
from neuronbert.benchmark.columns import figure

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
# Reports, from inside the page, what a person would see of it.
PROBE = """<script>addEventListener("load", () => {
const all = selector => [...document.querySelectorAll(selector)], box = one => one.getBoundingClientRect();
all(".point")[7].dispatchEvent(new MouseEvent("click"));
all(".points th")[2].dispatchEvent(new MouseEvent("click"));
const made = document.createElement("pre"); made.id = "probe"; made.textContent = JSON.stringify({width: innerWidth,
  wide: all("body *").filter(one => box(one).right > innerWidth + 1).map(one => one.tagName + "#" + one.id),
  cut: all("svg text").filter(one => box(one).right > box(one.ownerSVGElement).right + 1
    || box(one).left < box(one.ownerSVGElement).left - 1).map(one => one.textContent),
  points: all(".point").length, rows: all(".points")[0].tBodies[0].rows.length, rings: all("#curve .ring").length,
  knees: all("#curve .knee").map(one => one.textContent), loads: all("#curve .soft.halo").map(one => one.textContent),
  fastest: all(".points")[0].tBodies[0].rows[0].cells[2].firstChild.textContent, bars: all("#cost rect").length,
  histogram: all("#detail rect").length, axes: all("svg text").map(one => one.textContent)});
parent.document.body.appendChild(made); });</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to look at the page with")
@pytest.mark.parametrize("width", [1300, 1024, 390])
def test_the_page_in_a_browser(tmp_path, width):
    made = document()
    # A window cannot be as narrow as a phone; a frame can.
    framed = html.escape(html_page.as_html(made) + PROBE)
    page = tmp_path / "frame.html"
    page.write_text(f'<body><iframe srcdoc="{framed}" style="width:{width}px;height:844px;border:0"></iframe>')
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--dump-dom"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S).group(1)))
    assert seen["width"] == width and seen["wide"] == [] and seen["cut"] == []
    assert seen["points"] == seen["rows"] == 25 and seen["bars"] == 5 and seen["histogram"] == 40
    assert {"throughput (answers per second)", "latency p95 (ms)"} <= set(seen["axes"])
    # One ring on each of the five curves, and the loads beside their points where there is room.
    assert seen["rings"] == 5 and "knee: 2 clients" in seen["knees"] and {"1", "16"} <= set(seen["loads"])
    assert seen["fastest"] == figure(max(point["throughput_avg"] for point in made["points"]))
