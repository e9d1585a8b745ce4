"""Progress on stderr: what a line says, when there is one, and that it keeps out of the way of other lines."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.cli import progress
from neuronbert.cli.progress import Progress, Reading, Stages, duration, note, progress_text

START = Reading(100.0)


@pytest.mark.parametrize(
    ("unit", "first", "last", "now_s", "words"),
    [
        ("questions", START, START, 104.0, "answering: 0:04"),
        ("questions", START, Reading(103.0, 30), 104.0, "answering: 30 questions, 0:04"),
        ("", Reading(100.0, 0, 5), Reading(110.0, 2, 5), 110.0, "answering: 2 of 5, about 0:15 left"),
        ("", Reading(100.0, 0, 5), Reading(110.0, 2, 5), 113.0, "answering: 2 of 5, about 0:12 left"),
        ("", Reading(100.0, 0, 5), Reading(100.0, 0, 5), 113.0, "answering: 0 of 5, 0:13"),
        (
            "lines",  # a job that was resumed at line 1,000: its rate is of this run
            Reading(100.0, 1000, 5000),
            Reading(110.0, 2000, 5000),
            110.0,
            "answering: 2,000 of 5,000 lines (40%), 100/s, about 0:30 left",
        ),
        ("lines", Reading(100.0, 0), Reading(110.0, 25), 112.0, "answering: 25 lines, 2.5/s, 0:12"),
        ("lines", Reading(100.0, 0, 0), Reading(110.0, 0, 0), 112.0, "answering: 0 of 0 lines, 0:12"),
    ],
)
def test_a_line_says_how_much_how_fast_and_how_long_still(unit, first, last, now_s, words):
    assert progress_text("answering", unit, first, last, now_s) == words


COUNTS = st.one_of(st.none(), st.integers(0, 10**12))


@given(st.sampled_from(["", "lines"]), COUNTS, COUNTS, COUNTS, st.floats(0, 1e6), st.floats(0, 1e6))
def test_whatever_the_counts_there_is_one_line_and_no_time_below_zero(unit, before, done, total, later_s, silent_s):
    first, last = Reading(0.0, before, total), Reading(later_s, done, total)
    text = progress_text("x", unit, first, last, later_s + silent_s)
    assert text.startswith("x: ") and "\n" not in text
    assert "-" not in text or (total is not None and done is not None and done > total)


def test_durations():
    assert [duration(seconds) for seconds in (-1, 0.4, 59.6, 3599.4, 7387)] == [
        "0:00",
        "0:00",
        "1:00",
        "59:59",
        "2:03:07",
    ]


def test_what_is_quick_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_S", 30 * progress.DELAY_S)  # quick beside a busy neighbour, too
    with Progress("answering", "questions") as shown:
        shown(1, 2)
        note("a line")
    assert capsys.readouterr().err == "a line\n"


def test_where_there_is_no_terminal_every_line_stays(capsys, monkeypatch):
    written = threading.Event()
    echo = progress.click.echo

    def seen(text, **keywords):
        echo(text, **keywords)
        written.set()

    monkeypatch.setattr(progress, "DELAY_S", 0.001)
    monkeypatch.setattr(progress.click, "echo", seen)
    shown = Progress("reading")
    shown.about("answering", "questions")
    shown(1, 4)
    shown(3, 2)
    with shown:
        assert written.wait(60)
        note("a line")
    assert re.fullmatch(r"answering: 3 of 3 questions \(100%\), [^\n]*left\na line\n", capsys.readouterr().err)


def test_the_pause_between_two_lines_grows(monkeypatch):
    """An hour's log is not a line every five seconds."""
    clock, pauses = [0.0], []

    class Over:
        def wait(self, pause_s):
            pauses.append(pause_s)
            clock[0] += pause_s
            return clock[0] > 3600

        def is_set(self):
            return True

    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = Progress("answering")
    shown._over = Over()
    shown._run()
    assert pauses[:3] == [progress.DELAY_S, progress.LINE_S, progress.LINE_S]
    assert pauses == sorted(pauses, key=lambda pause: pause) and pauses[-1] == progress.LONGEST_LINE_S
    assert len(pauses) < 120


ON_A_TERMINAL = """
import sys, time
from neuronbert.cli import progress
from neuronbert.cli.output import put
from neuronbert.cli.progress import note
progress.DELAY_S = progress.REDRAW_S = 0.01
write, drawn = progress.Progress._write, []

def counted(*arguments):
    write(*arguments)
    drawn.append(arguments)

def wait_for(count):
    while len(drawn) < count:
        time.sleep(0.01)

progress.Progress._write = counted
often = 0 if progress.terminal_width() is None else 4  # where each line stays, there is one in five seconds
with progress.Progress("answering", "questions") as shown:
    shown(0, 1000)
    wait_for(1)
    for number in range(1, 4):
        wait_for(often * number)
        shown(number, 1000)
        put(f"result {number}")
    wait_for(often * 4)
    note("a note")
note("the end")
"""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_on_a_terminal_one_line_is_written_over_and_gone_at_the_end(term):
    mine, its = pty.openpty()
    environment = {**os.environ, "TERM": term}
    with subprocess.Popen([sys.executable, "-c", ON_A_TERMINAL], stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        text = b""
        while True:
            try:
                text += os.read(mine, 65536)
            except OSError:
                break
    os.close(mine)
    assert process.returncode == 0
    shown = text.decode().replace("\r\n", "\n")
    if term == "dumb":
        assert progress.ERASE not in shown and re.search(r"^answering: \d of 1,000 questions", shown, re.MULTILINE)
        return
    assert len(re.findall("answering", shown)) > 10
    # What a terminal shows: an erased line is gone, and nothing is written behind what is left of another.
    lines = [line.rpartition(progress.ERASE)[2] for line in shown.split("\n")]
    assert lines == ["result 1", "result 2", "result 3", "a note", "the end", ""]


class Recorded(Progress):
    """What a Progress was told."""

    def __init__(self):
        self.told = []
        super().__init__("compiling")

    def about(self, label, unit=""):
        self.told.append(label)
        super().about(label, unit)

    def __call__(self, done, total=None):
        self.told.append((done, total))


def test_stages_are_lines_and_counts_within_them(capsys):
    recorded = Recorded()
    stages = Stages(recorded)
    stages.line("openvino-int8: compiling (method nncf, preset mixed)")
    stages.step("calibration texts read, pass 1", 0, 2)
    stages.step("calibration texts read, pass 1", 2, 2)
    stages.line("openvino-int8: comparing\nwith the reference")
    assert recorded.told == [
        "compiling",
        "openvino-int8: compiling",
        "calibration texts read, pass 1",
        (0, 2),
        (2, 2),
        "openvino-int8: comparing",
    ]
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "openvino-int8: compiling (method nncf, preset mixed)",
        "openvino-int8: comparing",
        "with the reference",
    ]


def test_a_line_in_the_middle_of_a_count_does_not_begin_it_anew():
    """So that the time left is known from the shapes that are done."""
    recorded = Recorded()
    stages = Stages(recorded)
    stages.step("shapes compiled", 0, 2)
    stages.line("neuron-b1-s128-p1: compiling")
    stages.step("shapes compiled", 1, 2)
    assert recorded.told == ["compiling", "shapes compiled", (0, 2), (1, 2)]
