"""The offline job: the same bytes whatever happens, in real processes that are killed, starved of disk and stopped."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest
from echo_files import with_echo
from fake_nvml import Card, use_gpus
from processes import wait_until

from neuronbert import Engine, Runner, load_artifact, run_job
from neuronbert.artifact import resumable
from neuronbert.artifact.resumable import Record, partial_path, read_record, record_path
from neuronbert.backends import echo
from neuronbert.backends.base import ThroughputPlan
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.lines import answer_lines
from neuronbert.engine.rounds import Rounds
from neuronbert.errors import ArtifactError, BackendFailed, InputError, OutputError, UsageError
from neuronbert.runner import job, job_input, placement
from neuronbert.runner.job import BLOCKS_IN_FLIGHT
from neuronbert.tasks import lines as tasks_lines
from neuronbert.tasks.base import option_kinds, options_of
from neuronbert.tasks.line_formats import FORMATS
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.question_answering.lines import question_line
from neuronbert.tasks.question_answering.options import WindowOptions

WORDS = "the old coat of Jim Henson made a frog puppet that everybody knows by its green arms".split()
BLOCK_LINES = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(job_input, "BLOCK_LINES", BLOCK_LINES)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no test pulls the plug


BATCHES, BLOCKS = "batches", "blocks"  # the two ways to the same bytes


def go(way: str, monkeypatch) -> None:
    """What workers get of a job from now on, of this process or of those that are started."""
    monkeypatch.setattr(echo, "HOST_BOUND", way == BLOCKS)
    monkeypatch.setenv("TEST_HOST_BOUND", way)


@pytest.fixture(params=[BATCHES, BLOCKS])
def way(request, monkeypatch):
    go(request.param, monkeypatch)
    return request.param


def question_lines(count: int) -> List[str]:
    """Contexts of 1 to 600 words, so that some have several windows; some lines have an id, options, or nothing."""
    chosen = random.Random(0)
    lines = []
    for number in range(count):
        context = " ".join(chosen.choices(WORDS, k=chosen.choice([1, 20, 60, 600])))
        more: Dict[str, Any] = {"top_k": 3} if number % 7 == 0 else {"doc_stride": 8} if number % 11 == 0 else {}
        identity = f"id-é-{number}" if number % 2 else None
        lines.append("" if number % 13 == 5 else question_line(f"What is {number}?", context, identity, **more))
    return lines


def write(path: Path, lines: List[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture()
def questions(tmp_path):
    return write(tmp_path / "questions.jsonl", question_lines(100))


class FailingDisk:
    """A file that can be opened, and not read beyond its first lines."""

    name = "questions.jsonl"

    def readline(self, limit):
        raise OSError(5, "Input/output error")


def test_a_disk_that_fails_is_the_input_s_fault():
    with pytest.raises(InputError, match="cannot read questions.jsonl: Input/output error"):
        tasks_lines.BoundedLines(FailingDisk()).next()


def test_so_it_is_where_the_lines_are_counted(echo_artifact, tmp_path):
    with pytest.raises(InputError, match="cannot read /proc/self/mem: Input/output error"):  # nothing is mapped at 0
        run_job(echo_artifact, "/proc/self/mem", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def expected(artifact, questions: Path, **keywords: Any) -> bytes:
    """What ``neuronbert answer --input`` prints for the same lines."""
    options = options_of(option_kinds(question_answering), keywords)
    with Engine(artifact) as engine, open(questions, "rb") as lines:
        answered, _ = answer_lines(engine, lines, *options, on_error="fail")
        results = [json.dumps(result, ensure_ascii=False) + "\n" for result in answered]
    return "".join(results).encode("utf-8")


def as_table(path: Path, count: int) -> Path:
    """Those questions as CSV; a third of the contexts have lines of their own."""
    records = [json.loads(line) if line else {} for line in question_lines(count)]
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for number, record in enumerate(records):
        if record and number % 3 == 0:
            record["context"] = record["context"].replace(" Jim", '\n"Jim", ')
        writer.writerow(record) if record else text.write("\n")
    path.write_bytes(text.getvalue().encode("utf-8"))
    return path


def expected_table(artifact, questions: Path, on_error: str = "fail") -> bytes:
    """What ``neuronbert answer --input --output-format csv`` prints."""
    table, options = FORMATS["csv"], options_of(option_kinds(question_answering), {})
    columns = question_answering.columns({}, options[1])
    with Engine(artifact) as engine, open(questions, "rb") as lines:
        answered, _ = answer_lines(engine, lines, *options, on_error=on_error, line_format=table)
        results = [table.line(result, columns) for result in answered]
    return "".join([table.head(columns), *results]).encode("utf-8")


def rows_of(output: Path) -> List[Dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(output.read_text("utf-8"), newline=""), strict=True))


@pytest.mark.usefixtures("way")
def test_it_writes_what_answer_prints(echo_artifact, questions, tmp_path):
    seen = []
    report = run_job(
        echo_artifact.folder, questions, tmp_path / "new" / "out", progress=lambda *done: seen.append(done)
    )
    assert (tmp_path / "new" / "out").read_bytes() == expected(echo_artifact, questions)
    assert (report.lines, report.answered, report.skipped, report.resumed_lines) == (100, 92, 0, 0)
    assert report.variant == "echo-fp32" and report.inputs_per_s > 0
    assert seen[0] == (0, 100) and seen[-1] == (100, 100)
    done = [lines for lines, _ in seen]
    assert done == sorted(done) and len(set(done)) > 20  # it moves with the batches, not with the blocks
    assert os.listdir(tmp_path / "new") == ["out"]
    assert json.dumps(report.as_dict())


def test_a_named_pipe_is_read_as_its_writer_writes(echo_artifact, questions, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", str(questions), str(tmp_path / "pipe")]):
        report = run_job(echo_artifact, tmp_path / "pipe", tmp_path / "out")
    assert report.lines == 100 and (tmp_path / "out").read_bytes() == expected(echo_artifact, questions)


def test_an_output_inside_the_artifact_is_refused_and_leaves_it_whole(echo_copy, questions):
    before = sorted(echo_copy.rglob("*"))
    for artifact in (echo_copy, load_artifact(echo_copy)):
        with pytest.raises(OutputError, match="would be written into the artifact"):
            run_job(artifact, questions, echo_copy / "out")
    assert sorted(echo_copy.rglob("*")) == before


@pytest.mark.usefixtures("way")
def test_options_are_those_of_answer(echo_artifact, questions, tmp_path):
    options = {"max_seq_len": 64, "doc_stride": 16, "top_k": 2, "ranking": "document"}
    run_job(echo_artifact, questions, tmp_path / "out", workers=2, **options)
    assert (tmp_path / "out").read_bytes() == expected(echo_artifact, questions, **options)


def long_questions(tmp_path) -> Path:
    """Contexts of many windows, of which some share a word with the question that others do not."""
    chosen, lines = random.Random(1), []
    for number in range(30):
        words = chosen.choices(WORDS, k=400)
        words[chosen.randrange(400)] = f"{number}th"
        lines.append(question_line(f"Who is the {number}th?", " ".join(words), None))
    return write(tmp_path / "long.jsonl", lines)


@pytest.mark.usefixtures("way")
def test_selected_windows_are_read_in_rounds_with_the_answers_of_one_process(echo_artifact, tmp_path, monkeypatch):
    questions, options = long_questions(tmp_path), {"max_seq_len": 64, "doc_stride": 16, "select_windows": 1}
    run_job(echo_artifact, questions, tmp_path / "out", workers=2, **options)
    assert (tmp_path / "out").read_bytes() == expected(echo_artifact, questions, **options)
    assert (tmp_path / "out").read_bytes() != expected(echo_artifact, questions, **{**options, "select_windows": 0})


def rounds_with(token: int, engine: Engine, pair, options: WindowOptions) -> List[bool]:
    """Of each round in which the engine reads an input's windows, whether one of them holds the token."""
    rounds = Rounds(engine.task, engine.encode([pair], options), [engine.task.DECODE_OPTIONS()])
    holds = []
    while rounds.rows:
        holds.append(any(token in row.input_ids.tolist() for row in rounds.rows))
        rounds.give(dict(enumerate(engine.outputs(rounds.rows))))
    return holds


@pytest.mark.usefixtures("way")
def test_a_row_that_fails_in_a_later_round_costs_its_own_line_only(echo_copy, tmp_path, monkeypatch):
    monkeypatch.setenv(echo.FAULTS_VARIABLE, "1")
    options = {"max_seq_len": 64, "doc_stride": 16, "select_windows": 1}
    lines = [json.loads(line) for line in long_questions(tmp_path).read_text("utf-8").splitlines()]
    for line in lines:
        line["context"] += " refuse" * 9  # in the last window, of which little is shared with the question
    questions = write(tmp_path / "long.jsonl", [json.dumps(line) for line in lines])
    token = Tokenizer.from_files(echo_copy).backend.token_to_id("refuse")
    with Engine(echo_copy, threads=1) as engine:
        pairs = [(line["question"], line["context"]) for line in lines]
        holds = [rounds_with(token, engine, pair, WindowOptions(**options)) for pair in pairs]
    assert not all(map(any, holds)) and any(any(each[1:]) and not each[0] for each in holds)
    faulty = with_echo(echo_copy, faults={token: "raise"})
    run_job(faulty, questions, tmp_path / "out", on_error="skip", **options)
    results = [json.loads(line) for line in (tmp_path / "out").read_text("utf-8").splitlines()]
    assert ["error" in result for result in results] == [any(each) for each in holds]


def recorded_lines(monkeypatch, artifact, questions: Path, output: Path) -> List[int]:
    """How many lines were done behind each step."""
    recorded: List[int] = []
    append = resumable.ResumableOutput.append

    def noted(self, data, record, **more):
        recorded.append(record.input_lines)
        return append(self, data, record, **more)

    with monkeypatch.context() as patch:
        patch.setattr(resumable.ResumableOutput, "append", noted)
        run_job(artifact, questions, output)
    return recorded


@pytest.mark.usefixtures("way")
def test_a_block_is_as_long_as_all_before_it_up_to_a_limit(echo_artifact, questions, tmp_path, monkeypatch):
    found = recorded_lines(monkeypatch, echo_artifact, questions, tmp_path / "lines")
    assert found == [8, 16, 32, 48, 64, 80, 96, 100]
    monkeypatch.setattr(job_input, "FIRST_BYTES", 600)
    monkeypatch.setattr(job_input, "BLOCK_BYTES", 20_000)
    found = recorded_lines(monkeypatch, echo_artifact, questions, tmp_path / "bytes")
    sizes = [len(line) + 1 for line in questions.read_bytes().splitlines()]
    for before, after in zip([0, *found], found):
        done, longest = sum(sizes[:before]), max(sizes)
        assert sum(sizes[before:after]) < min(max(600, done), 20_000) + longest
    assert (tmp_path / "bytes").read_bytes() == (tmp_path / "lines").read_bytes()  # echo is batch-invariant


def test_long_lines_make_small_blocks(echo_artifact, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(job_input, "BLOCK_BYTES", 1)
    assert recorded_lines(monkeypatch, echo_artifact, questions, tmp_path / "out") == list(range(1, 101))
    assert (tmp_path / "out").read_bytes() == expected(echo_artifact, questions)


@pytest.mark.usefixtures("way")
def test_memory_is_that_of_a_few_blocks(echo_artifact, tmp_path, monkeypatch):
    """However long the input: no more is read than what is on its way."""
    questions = write(tmp_path / "questions", question_lines(30 * BLOCK_LINES))
    read, ahead = [0], []
    block = job_input.JobInput.block

    def counted(source):
        lines = block(source)
        read[0] += len(lines)
        return lines

    monkeypatch.setattr(job_input.JobInput, "block", counted)
    run_job(
        echo_artifact, questions, tmp_path / "out", threads=1, progress=lambda lines, _: ahead.append(read[0] - lines)
    )
    assert max(ahead) <= (BLOCKS_IN_FLIGHT + 1) * BLOCK_LINES


# Broken lines.

BROKEN = "{broken"


@pytest.mark.usefixtures("way")
def test_a_broken_line_keeps_what_was_good_before_it(echo_artifact, tmp_path):
    lines = question_lines(60)
    path = write(tmp_path / "questions", [*lines[:40], BROKEN, *lines[40:]])
    with pytest.raises(InputError, match="line 41: not JSON"):
        run_job(echo_artifact, path, tmp_path / "out")
    record = read_record(tmp_path / "out")
    assert record is not None and record.input_lines == 32
    write(path, lines)  # mended: what is recorded lies before it
    report = run_job(echo_artifact, path, tmp_path / "out")
    assert (report.lines, report.resumed_lines) == (60, 32)
    assert (tmp_path / "out").read_bytes() == expected(echo_artifact, path)


def test_a_broken_line_in_the_first_block_leaves_nothing(echo_artifact, tmp_path):
    path = write(tmp_path / "questions", [*question_lines(3), BROKEN])
    with pytest.raises(InputError, match="line 4"):
        run_job(echo_artifact, path, tmp_path / "out")
    assert os.listdir(tmp_path) == ["questions"]


@pytest.mark.usefixtures("way")
def test_broken_lines_are_told_and_written_as_errors(echo_artifact, tmp_path):
    lines = question_lines(40)
    mixed = [*lines[:20], BROKEN, question_line("why " * 600, "text"), *lines[20:], BROKEN]
    skipped = []
    report = run_job(
        echo_artifact, write(tmp_path / "mixed", mixed), tmp_path / "out", on_error="skip", on_skip=skipped.append
    )
    assert [line.line_number for line in skipped] == [21, 22, 43]
    assert "600 tokens" in skipped[1].reason
    assert (report.lines, report.answered, report.skipped) == (43, 37, 3)
    written = [json.loads(line) for line in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    errors = [line for line in written if "error" in line]
    assert errors == [line.document() for line in skipped]
    plain = [json.loads(line) for line in expected(echo_artifact, write(tmp_path / "good", lines)).splitlines()]
    for one, other in zip((line for line in written if "error" not in line), plain):
        shift = 2 if other["line"] > 20 else 0
        assert one == {**other, "line": other["line"] + shift}


@pytest.mark.parametrize("lines", [[], ["", " "]])
def test_input_without_a_question_is_refused(echo_artifact, tmp_path, lines):
    with pytest.raises(InputError, match="no question"):
        run_job(echo_artifact, write(tmp_path / "questions", lines), tmp_path / "out")
    assert not (tmp_path / "out").exists()


SURROGATE = '{"id": "\\udc80", "question": "Who?", "context": "Jim Henson."}'


def test_an_id_that_is_no_text_is_an_error_line(echo_artifact, tmp_path):
    lines = [SURROGATE, question_line("Who?", "Jim Henson.", "a"), '{"id": "b", "question": "\\ud800"}']
    with start(echo_artifact, write(tmp_path / "lines", lines), tmp_path / "out", "--on-error", "skip") as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    first, second, third = map(json.loads, (tmp_path / "out").read_bytes().decode("utf-8").splitlines())
    assert first == {"line": 1, "error": "id holds half of a surrogate pair (\\udc80) at character 0"}
    assert (second["line"], second["id"]) == (2, "a")
    assert third["id"] == "b" and third["error"].startswith("question holds half")
    with pytest.raises(InputError, match="line 1: id holds half"):
        run_job(echo_artifact, tmp_path / "lines", tmp_path / "other")


# Tables.


@pytest.fixture()
def table(tmp_path):
    return as_table(tmp_path / "questions.csv", 100)


def test_a_table_in_and_a_table_out(echo_artifact, table, tmp_path, monkeypatch):
    steps = recorded_lines(monkeypatch, echo_artifact, table, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == expected_table(echo_artifact, table)
    # Blocks end where rows do, with the lines of the last row.
    lines = table.read_bytes().count(b"\n")
    assert steps[-1] == lines > 300 and len(steps) > 10
    assert all(16 <= after - before < 120 for before, after in zip(steps[1:-1], steps[2:-1]))
    rows = rows_of(tmp_path / "out.csv")
    assert [row["id"] for row in rows[:3]] == ["", "id-é-1", ""] and len(rows) == 92
    assert json.loads(rows[0]["answers"]) and not rows[0]["answer"] and rows[1]["answer"]


def test_the_formats_of_input_and_output_are_told_apart(echo_artifact, table, questions, tmp_path):
    report = run_job(echo_artifact, table, tmp_path / "out.jsonl")
    assert (report.lines, report.answered) == (table.read_bytes().count(b"\n"), 92)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert written[0]["answers"] and written[1]["id"] == "id-é-1"
    run_job(echo_artifact, questions, tmp_path / "named", input_format="jsonl", output_format="csv")
    run_job(echo_artifact, questions, tmp_path / "out.csv")
    assert (tmp_path / "named").read_bytes() == (tmp_path / "out.csv").read_bytes()
    rows = rows_of(tmp_path / "named")
    lines = [json.loads(line) for line in expected(echo_artifact, questions).splitlines()]
    assert [(int(row["line"]), row["id"]) for row in rows] == [(one["line"], one.get("id", "")) for one in lines]
    scores = [one["score"] for one in lines if "score" in one]
    assert [json.loads(row["score"]) for row in rows if row["score"]] == scores


def test_tabs_separate_too(echo_artifact, tmp_path):
    path = write(tmp_path / "questions.tsv", ["question\tcontext", 'Who "is"?\t"Jim" Henson', "", "Who?\tJim"])
    assert run_job(echo_artifact, path, tmp_path / "out.tsv").answered == 2
    head, first, second = (tmp_path / "out.tsv").read_text("utf-8").splitlines()
    assert head == "line\tid\tscore\tstart\tend\tanswer\tanswers\terror"
    assert first.startswith("2\t\t") and second.startswith("4\t\t") and first.split("\t")[5] in '"Jim" Henson'


@pytest.mark.parametrize("behind", [1, 130, 300])
def test_a_table_job_goes_on_behind_a_whole_row(echo_artifact, table, tmp_path, behind):
    output = tmp_path / "out.csv"

    def stop(done, total):
        record = read_record(output)
        if record is not None and record.input_lines >= behind:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(echo_artifact, table, output, progress=stop)
    record = read_record(output)
    done = partial_path(output).read_bytes()[: record.output_bytes]
    assert done.startswith(b"line,id,") and record.input_lines >= behind
    moved = table.rename(tmp_path / "moved.csv")
    last = {"id": "last", "question": "Who?", "context": '"Jim\nHenson"'}
    columns = moved.read_bytes().splitlines()[0].decode().split(",")
    with open(moved, "ab") as file:  # without the end of its line
        file.write(",".join(last.get(column, "") for column in columns).encode())
    report = run_job(echo_artifact, moved, output, workers=2)
    assert report.resumed_lines == record.input_lines
    assert output.read_bytes() == expected_table(echo_artifact, moved)
    assert output.read_bytes().startswith(done) and output.read_bytes().count(b"line,id,score") == 1


def test_a_last_row_that_grew_is_read_anew(echo_artifact, table, tmp_path):
    """Cut within its quotes it is a broken row, and the block that holds it is never recorded."""
    data, output = table.read_bytes(), tmp_path / "out.csv"
    table.write_bytes(data[: data.rindex(b'\n""Jim""') + 3])
    with pytest.raises(InputError, match="a quotation mark is opened and never closed"):
        run_job(echo_artifact, table, output)
    record = read_record(output)
    assert record is not None and 0 < record.input_lines < data.count(b"\n")
    table.write_bytes(data)
    assert run_job(echo_artifact, table, output).resumed_lines == record.input_lines
    assert output.read_bytes() == expected_table(echo_artifact, table)


def test_a_table_that_becomes_shorter_is_refused(echo_artifact, table, tmp_path):
    data, output = table.read_bytes(), tmp_path / "out.csv"

    def cut(done, total):
        if done == 0:
            os.truncate(table, data.rindex(b'\n""Jim""') + 3)

    with pytest.raises(InputError, match="was changed while it was read: it had .* bytes in .* lines, and now ends"):
        run_job(echo_artifact, table, output, on_error="skip", progress=cut)
    table.write_bytes(data)
    assert run_job(echo_artifact, table, output, on_error="skip").resumed_lines
    assert output.read_bytes() == expected_table(echo_artifact, table)


@pytest.mark.parametrize("change", ["header", "row"])
def test_a_table_of_which_the_beginning_changed_is_refused(echo_artifact, table, tmp_path, change):
    data, output = table.read_bytes(), tmp_path / "out"

    def stop(done, total):
        if (read_record(output) or Record({}, True)).input_lines:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(echo_artifact, table, output, progress=stop)
    changed = {"header": data.replace(b"id", b"no", 1), "row": data.replace(b"What is 0?", b"What is 9?")}
    table.write_bytes(changed[change])
    with pytest.raises(OutputError, match="was begun with another input"):
        run_job(echo_artifact, table, output)
    table.write_bytes(data)
    assert run_job(echo_artifact, table, output).resumed_lines  # nothing was lost by it


def test_a_table_job_is_no_job_of_other_formats(echo_artifact, table, tmp_path):
    output = tmp_path / "out"

    def stop(done, total):
        if (read_record(output) or Record({}, True)).input_lines:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(echo_artifact, table, output, progress=stop)
    with pytest.raises(InputError, match="no column 'question'"):
        run_job(echo_artifact, table, output, input_format="tsv")
    with pytest.raises(OutputError, match='its input_format was "csv", and is now "jsonl"'):
        run_job(echo_artifact, table, output, input_format="jsonl")
    with pytest.raises(OutputError, match='its output_format was "jsonl", and is now "csv"'):
        run_job(echo_artifact, table, output, output_format="csv")
    assert run_job(echo_artifact, table, output).resumed_lines


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("question,text\na,b\n", "line 1: there is no column 'context' in the header, which has 'question', 'text'"),
        ("", "the input holds no question"),
        ("question,context\n", "the input holds no question"),
        ('question,context\n"a,b\n', "line 2: a quotation mark is opened and never closed"),
        ("question,context\na,b,c\n", "line 2: 3 columns, where the header has 2"),
    ],
)
def test_a_table_that_will_not_do_leaves_nothing(echo_artifact, tmp_path, content, words):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        run_job(echo_artifact, tmp_path / "in.csv", tmp_path / "out.csv")
    assert os.listdir(tmp_path) == ["in.csv"]


def test_broken_rows_are_rows_of_the_output(echo_artifact, tmp_path):
    rows = ["id,question,context", "a,Who?,Jim", "b,Who?", 'c,"Who"?,Jim', "d,,Jim", "e,Who?,Jim"]
    path = write(tmp_path / "in.csv", rows)
    report = run_job(echo_artifact, path, tmp_path / "out.csv", on_error="skip")
    assert (report.lines, report.answered, report.skipped) == (6, 2, 3)
    assert (tmp_path / "out.csv").read_bytes() == expected_table(echo_artifact, path, "skip")
    assert [(row["line"], row["id"], bool(row["error"])) for row in rows_of(tmp_path / "out.csv")] == [
        ("2", "a", False), ("3", "", True), ("4", "", True), ("5", "d", True), ("6", "e", False),
    ]  # fmt: skip


def test_a_row_without_an_end_keeps_what_was_good_before_it(echo_artifact, table, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 20_000)
    data, output = table.read_bytes(), tmp_path / "out.csv"
    table.write_bytes(data + b'"never closed' + b"a line of it\n" * 2000)
    with pytest.raises(InputError, match="a row of more than 0 MiB: is a quotation mark never closed"):
        run_job(echo_artifact, table, output, on_error="skip")
    kept = read_record(output)
    assert kept is not None and kept.input_lines > data.count(b"\n") - 120
    table.write_bytes(data)
    assert run_job(echo_artifact, table, output, on_error="skip").resumed_lines == kept.input_lines
    assert output.read_bytes() == expected_table(echo_artifact, table)


def test_a_tab_separated_row_that_is_too_long_is_one_error(echo_artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 2000)
    monkeypatch.setattr(tasks_lines, "PASS_OVER_BYTES", 64)
    rows = ["Who?\t" + ("x" * 9000 if number % 20 == 3 else "Jim Henson") for number in range(50)]
    path = write(tmp_path / "in.tsv", ["question\tcontext", *rows])
    report = run_job(echo_artifact, path, tmp_path / "out.tsv", on_error="skip")
    assert (report.lines, report.answered, report.skipped) == (51, 47, 3)


# Lines without an end.


@pytest.mark.usefixtures("way")
def test_a_line_that_is_too_long_is_one_error(echo_artifact, tmp_path, monkeypatch):
    """Wherever it stands, what comes after it is answered, and a job that is resumed behind it goes on as it would."""
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 2000)
    monkeypatch.setattr(tasks_lines, "PASS_OVER_BYTES", 64)
    lines = ["x" * 9000 if number % 20 == 3 else line[:1900] for number, line in enumerate(question_lines(50))]
    path = write(tmp_path / "lines", [question_line("Who?", "Jim Henson."), *lines, "y" * 5000])
    run_job(echo_artifact, path, tmp_path / "whole", on_error="skip")
    written = [json.loads(line) for line in (tmp_path / "whole").read_text(encoding="utf-8").splitlines()]
    too_long = [line["line"] for line in written if line.get("error", "").startswith("longer than")]
    assert too_long == [5, 25, 45, 52] and len(written) > 30

    def stop(done, *_):
        if done > 20:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(echo_artifact, path, tmp_path / "out", on_error="skip", on_skip=lambda line: stop(line.line_number))
    assert run_job(echo_artifact, path, tmp_path / "out", on_error="skip").resumed_lines
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def endless(kind: str, path: Path) -> str:
    """Input that the memory given does not hold: a device without an end, or a file with one line of 3 GiB."""
    if kind == "device":
        return "/dev/zero"
    write(path, [question_line("Who?", "Jim Henson.")])
    os.truncate(path, 3 << 30)
    return str(path)


@pytest.mark.parametrize("kind", ["device", "file"])
@pytest.mark.parametrize("verb", ["run", "answer"])
def test_endless_lines_need_little_memory(echo_artifact, tmp_path, verb, kind):
    """With less than a gigabyte beyond what the interpreter and its libraries take."""
    arguments = [verb, str(echo_artifact.folder), "--input", endless(kind, tmp_path / "lines")]
    more = ["--output", str(tmp_path / "out")] if verb == "run" else []
    code = (
        "import resource, sys, neuronbert.runner.job, neuronbert.engine.answering; "
        "from neuronbert.cli.main import main; from neuronbert.hardware.machine import process_fields; import os; "
        "used = int(process_fields(os.getpid())[20]); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY)); main()"
    )
    command = [sys.executable, "-c", code, *arguments, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 1, done.stderr
    number = 2 if kind == "file" else 1
    assert f"line {number}" in done.stderr and ("longer than 64 MiB" in done.stderr or "binary" in done.stderr)


# What is refused before anything is begun.


def test_an_output_that_exists_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        run_job("no-artifact", "no-input", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"artifact": "nothing"}, ArtifactError, "nothing"),
        ({"input": "nothing"}, InputError, "cannot read nothing"),
        ({"on_error": "stop"}, UsageError, "stop"),
        ({"workers": 10_000}, UsageError, "10,000 workers"),
        ({"doc_stride": 9999}, UsageError, "9999"),
        ({"variant": "gpu"}, ArtifactError, "gpu"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(echo_artifact, questions, tmp_path, change, error, words):
    arguments = {"artifact": echo_artifact.folder, "input": questions, "output": tmp_path / "new" / "out", **change}
    with pytest.raises(error, match=words):
        run_job(**arguments)
    assert os.listdir(tmp_path) == ["questions.jsonl"]


# An unfinished job: begun in this process and stopped behind its second block.


class Stopped(Exception):
    pass


@pytest.fixture()
def unfinished(echo_artifact, questions, tmp_path):
    def stop(lines, total):
        record = read_record(tmp_path / "out")
        if record is not None and record.input_lines == 2 * BLOCK_LINES:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(echo_artifact, questions, tmp_path / "out", progress=stop)
    return tmp_path / "out"


def test_it_goes_on_whatever_the_number_of_workers(echo_artifact, questions, unfinished, way):
    """And whatever way it went before."""
    seen = []
    report = run_job(echo_artifact, questions, unfinished, workers=2, progress=lambda *done: seen.append(done))
    assert report.resumed_lines == 2 * BLOCK_LINES
    assert unfinished.read_bytes() == expected(echo_artifact, questions)
    assert seen[0] == (2 * BLOCK_LINES, 100) and seen[-1] == (100, 100)


def test_the_input_may_have_moved_and_grown(echo_artifact, questions, unfinished, tmp_path):
    with open(questions, "a", encoding="utf-8") as file:
        file.write(question_line("One more?", "Yes, one more.") + "\n")
    moved = questions.rename(tmp_path / "moved")
    assert run_job(echo_artifact, moved, unfinished).lines == 101
    assert unfinished.read_bytes() == expected(echo_artifact, moved)


@pytest.mark.parametrize("is_whole", [True, False], ids=["last line whole", "last line without its end"])
def test_an_input_that_grew_after_its_end_was_read(echo_artifact, questions, tmp_path, monkeypatch, is_whole):
    """The block at the end is made anew: with the new lines it holds others, and a line's end is no line."""
    data, output = questions.read_bytes(), tmp_path / "out"
    questions.write_bytes(data if is_whole else data[:-1])
    with pytest.raises(OutputError, match="exists already"):
        run_job(echo_artifact, questions, output, progress=lambda done, total: done == total and output.touch())
    record = read_record(output)
    assert record is not None and record.input_lines == 6 * BLOCK_LINES
    output.unlink()
    questions.write_bytes(data + b"".join(data.splitlines(keepends=True)[:10]))
    steps = recorded_lines(monkeypatch, echo_artifact, questions, output)
    assert steps == [7 * BLOCK_LINES - 2]
    assert output.read_bytes() == expected(echo_artifact, questions)


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("left", ["60 lines", "59 lines and a half", "60 lines and no line's end", "nothing"])
def test_an_input_that_becomes_shorter_is_refused_and_nothing_is_lost(
    echo_artifact, questions, tmp_path, left, on_error
):
    data = questions.read_bytes()
    begin = b"".join(data.splitlines(keepends=True)[:60])
    size = {"60 lines": len(begin), "59 lines and a half": len(begin) - 9, "nothing": 0}.get(left, len(begin) - 1)

    def cut(done, total):
        if done == 0:
            os.truncate(questions, size)

    with pytest.raises(InputError) as caught:
        run_job(echo_artifact, questions, tmp_path / "out", on_error=on_error, progress=cut)
    found = "0 bytes in 0 lines" if left == "nothing" else f"{size:,} bytes in 60 lines"
    assert f"{questions} was changed while it was read: it had {len(data):,} bytes in 100 lines" in str(caught.value)
    assert f"now ends behind {found}\n  try: put it back" in str(caught.value)
    record = read_record(tmp_path / "out")
    assert (record.input_lines if record else 0) == (0 if left == "nothing" else 3 * BLOCK_LINES)
    questions.write_bytes(data)
    run_job(echo_artifact, questions, tmp_path / "out", on_error=on_error)
    assert (tmp_path / "out").read_bytes() == expected(echo_artifact, questions)


@pytest.mark.parametrize("change", ["another byte", "shorter"])
def test_another_input_is_refused(echo_artifact, questions, unfinished, change):
    data = questions.read_bytes()
    questions.write_bytes(data.replace(b"What is 1?", b"What is 2?") if change == "another byte" else data[:100])
    with pytest.raises(OutputError, match="was begun with another input"):
        run_job(echo_artifact, questions, unfinished)
    questions.write_bytes(data)
    run_job(echo_artifact, questions, unfinished)  # nothing was lost by it
    assert unfinished.read_bytes() == expected(echo_artifact, questions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 2}, "its top_k was 1, and is now 2"),
        ({"max_seq_len": 64}, "its max_seq_len was null, and is now 64"),
    ],
)
def test_other_options_are_refused(echo_artifact, questions, unfinished, options, words):
    with pytest.raises(OutputError, match=words):
        run_job(echo_artifact, questions, unfinished, **options)


def test_another_artifact_is_refused(echo_copy, questions, unfinished):
    other = with_echo(echo_copy, batch_s=0.001)
    with pytest.raises(OutputError, match="its artifact was"):
        run_job(other, questions, unfinished)


def test_a_stream_is_not_what_it_was_begun_with(echo_artifact, questions, unfinished):
    with open(questions, "rb") as file:
        piped = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
    with piped, pytest.raises(OutputError, match='its input was "file", and is now "stream"'):
        assert piped.stdout is not None
        run_job(echo_artifact, f"/dev/fd/{piped.stdout.fileno()}", unfinished)


# Real processes.

CODE = (
    "import os, resource, sys; from neuronbert.runner import job_input; from neuronbert.cli.main import main; "
    f"from neuronbert.backends import echo; echo.HOST_BOUND = os.environ.get('TEST_HOST_BOUND') == {BLOCKS!r}; "
    f"job_input.BLOCK_LINES = {BLOCK_LINES}; os.fsync = lambda descriptor: None; limit = int(sys.argv.pop(1)); "
    "limit and resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)); main()"
)


def start(artifact, questions: Any, output: Path, *options: str, limit: int = 0, **keywords: Any):
    """``neuronbert run`` as a process of its own; ``limit``: bytes that a file of its may have."""
    arguments = ["run", str(artifact.folder), "--input", str(questions), "--output", str(output), *options]
    command = [sys.executable, "-c", CODE, str(limit), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)


def wait_for_bytes(process, output: Path, count: int) -> None:
    """Until so much is written, or the process has ended."""
    while process.poll() is None and size_of(partial_path(output)) < count:
        time.sleep(0.001)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_killed_again_and_again_it_writes_the_same_bytes(echo_artifact, tmp_path, monkeypatch):
    """Each run goes the other way."""
    questions = write(tmp_path / "questions", question_lines(1600))
    undisturbed = expected(echo_artifact, questions)
    chosen = random.Random(time.time_ns())
    # Three in the first half: however late it is noticed that one is reached, so many are killed.
    points = sorted(chosen.randrange(len(undisturbed) // share) for share in (2, 2, 2, 1, 1, 1))
    output, kills = tmp_path / "out", 0
    for number, point in enumerate(points):
        go(BATCHES if number % 2 else BLOCKS, monkeypatch)
        with start(echo_artifact, questions, output) as process:
            wait_for_bytes(process, output, point)
            time.sleep(chosen.random() * 0.02)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        if output.exists():
            break
        assert undisturbed.startswith(partial_path(output).read_bytes()), f"points {points}"
    if not output.exists():
        with start(echo_artifact, questions, output, "--json") as process:
            assert json.loads(process.communicate()[0])["resumed_lines"] > 0
    assert kills >= 3
    assert output.read_bytes() == undisturbed, f"points {points}"
    assert sorted(os.listdir(tmp_path)) == ["out", "questions"]


@pytest.mark.usefixtures("way")
def test_a_table_job_that_is_killed_writes_the_same_bytes(echo_artifact, tmp_path):
    table, output = as_table(tmp_path / "questions.csv", 400), tmp_path / "out.csv"
    undisturbed, kills = expected_table(echo_artifact, table), 0
    chosen = random.Random(time.time_ns())
    for point in sorted([1, chosen.randrange(len(undisturbed) // 2)]):
        with start(echo_artifact, table, output) as process:
            wait_for_bytes(process, output, point)
            time.sleep(chosen.random() * 0.02)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        assert output.exists() or undisturbed.startswith(partial_path(output).read_bytes()), f"point {point}"
    if not output.exists():
        with start(echo_artifact, table, output) as process:
            process.communicate()
    assert kills and output.read_bytes() == undisturbed
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "questions.csv"]


def test_a_parquet_job_goes_on_after_a_full_disk(echo_artifact, table, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out.parquet"
    go(BLOCKS, monkeypatch)
    with start(echo_artifact, table, output, limit=10_000) as process:
        process.communicate()
    assert process.returncode == 1 and not output.exists()
    assert run_job(echo_artifact.folder, table, output).resumed_lines > 0
    go(BATCHES, monkeypatch)
    run_job(echo_artifact.folder, table, tmp_path / "other.parquet")
    assert output.read_bytes() == (tmp_path / "other.parquet").read_bytes()
    run_job(echo_artifact.folder, table, tmp_path / "out.csv")
    for row, cells in zip(parquet.read_table(output).to_pylist(), rows_of(tmp_path / "out.csv")):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == cells
    assert sorted(os.listdir(tmp_path)) == ["other.parquet", "out.csv", "out.parquet", "questions.csv"]


def test_an_npy_of_answers_is_refused_before_any_work(echo_artifact, questions, tmp_path):
    with pytest.raises(UsageError, match="one embedding of each text, and these results have score, start, end"):
        run_job(echo_artifact.folder, questions, tmp_path / "out.npy")
    assert os.listdir(tmp_path) == ["questions.jsonl"]


@pytest.fixture()
def no_nohup():
    """Processes started here are ended by SIGHUP, though the tests may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("no_nohup")
def test_an_early_interrupt_keeps_what_is_done(echo_copy, tmp_path, sign):
    """Whatever the signal, a few seconds after the first answer; the command that is then named goes on."""
    slow = with_echo(echo_copy, batch_s=0.1)
    questions = write(tmp_path / "it's questions", question_lines(160))
    output = tmp_path / "my out"
    command = [sys.executable, "-m", "neuronbert", "run", str(slow.folder), "--input", str(questions)]
    with subprocess.Popen([*command, "--output", str(output), "--threads", "1"], stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (read_record(output) or Record({}, True)).input_lines:
            time.sleep(0.01)
        process.send_signal(sign)
        _, err = process.communicate()
    assert process.returncode == 130
    kept, again, last = list(filter(None, err.decode().splitlines()))[-3:]  # click ends the line of the ^C
    record = read_record(output)
    assert record is not None and 8 <= record.input_lines < 160
    assert kept == f"{record.input_lines} lines are done and kept in {output}.partial; to go on from there:"
    assert last == "interrupted"
    done = subprocess.run(["sh", "-c", again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"going on behind line {record.input_lines}" in done.stderr
    assert output.read_bytes() == expected(slow, questions)


def test_nohup_is_kept(echo_artifact, questions, tmp_path):
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    command = [sys.executable, "-c", CODE, "0", "run", str(echo_artifact.folder), "--input", str(questions)]
    with subprocess.Popen([*nohup, *command, "--output", str(tmp_path / "out")], stderr=subprocess.PIPE) as process:
        while process.poll() is None and not partial_path(tmp_path / "out").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 0 and (tmp_path / "out").exists()


@pytest.mark.parametrize("sign", [signal.SIGINT])
def test_interrupted_it_says_that_it_can_go_on(echo_artifact, tmp_path, sign, monkeypatch):
    go(BLOCKS, monkeypatch)
    questions = write(tmp_path / "questions", question_lines(1600))
    output = tmp_path / "out"
    with start(echo_artifact, questions, output) as process:
        wait_for_bytes(process, output, 10_000)
        process.send_signal(sign)
        _, err = process.communicate()
    assert process.returncode == 130
    kept, *_, last = err.decode().splitlines()[-4:]
    assert last == "interrupted" and "lines are done and kept in" in kept
    with start(echo_artifact, questions, output) as process:
        _, err = process.communicate()
    assert process.returncode == 0 and b"by an earlier run" in err
    assert output.read_bytes() == expected(echo_artifact, questions)


def test_a_full_disk_loses_nothing(echo_artifact, questions, tmp_path):
    output = tmp_path / "out"
    with start(echo_artifact, questions, output, limit=10_000) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (1, b"")
    kept, again, error, hint = err.decode().splitlines()[-4:]
    assert "lines are done and kept in" in kept and " run " in again
    assert "a file would be larger than this process may write" in error and hint.startswith("  try:")
    with start(echo_artifact, questions, output) as process:
        process.communicate()
    assert process.returncode == 0
    assert output.read_bytes() == expected(echo_artifact, questions)


def test_stdin_is_read_once(echo_artifact, questions, tmp_path, monkeypatch):
    go(BLOCKS, monkeypatch)
    output = tmp_path / "out"
    with start(echo_artifact, "-", output, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(questions.read_bytes()[:-100])  # and there is more to come
        process.stdin.flush()
        wait_for_bytes(process, output, 1)
        process.kill()
    assert size_of(partial_path(output)) > 0
    with start(echo_artifact, "-", output, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(questions.read_bytes())
    assert (process.returncode, out) == (0, b"")
    assert b"cannot be read again" in err
    assert output.read_bytes() == expected(echo_artifact, questions)
    assert sorted(os.listdir(tmp_path)) == ["out", "questions.jsonl"]


def test_stdin_that_is_broken_leaves_nothing(echo_artifact, tmp_path):
    lines = "".join(line + "\n" for line in [*question_lines(40), BROKEN])
    with start(echo_artifact, "-", tmp_path / "out", stdin=subprocess.PIPE) as process:
        _, err = process.communicate(lines.encode())
    assert process.returncode == 1
    assert b"line 41" in err and b"goes on" not in err
    assert os.listdir(tmp_path) == []


# Blocks in the workers.


class WatchedRunner(Runner):
    """The job's own, for a test to look at."""

    made: "List[WatchedRunner]" = []

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.made.append(self)

    def pids(self) -> List[int]:
        return [worker["pid"] for worker in self.stats()["workers"] if worker["state"] == "ready"]


@pytest.fixture()
def runners(monkeypatch):
    monkeypatch.setattr(WatchedRunner, "made", [])
    monkeypatch.setattr(job, "Runner", WatchedRunner)
    return WatchedRunner.made


def test_workers_that_are_killed_in_the_middle_of_blocks_change_nothing(echo_copy, tmp_path, monkeypatch, runners):
    go(BLOCKS, monkeypatch)
    slow = with_echo(echo_copy, batch_s=0.01)
    questions = write(tmp_path / "questions", question_lines(400))
    told, kills = [], [20, 60, 130, 250]

    def kill(done, total):
        told.append(done)
        while kills and done >= kills[0]:
            kills.pop(0)
            os.kill(wait_until(runners[0].pids)[0], signal.SIGKILL)

    report = run_job(slow, questions, tmp_path / "out", workers=2, progress=kill)
    assert (tmp_path / "out").read_bytes() == expected(slow, questions)
    assert told == sorted(told) and report.skipped == 0  # though blocks began anew
    requests = runners[0].stats()["requests"]
    assert requests["deaths"] == 4 and requests["retried"] > 0 and requests["failed"] == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("on_error", ["skip", "fail"])
def test_a_line_that_no_session_answers_is_the_only_error(faulty_artifact, tmp_path, on_error, runners):
    lines = question_lines(60)
    good = write(tmp_path / "good", [*lines[:30], "", *lines[31:]])
    lines[30] = question_line("Do you refuse?", "It is in the box.", "mine")
    path = write(tmp_path / "questions", lines)
    if on_error == "fail":
        with pytest.raises(BackendFailed, match="^line 31: the echo backend was told to fail"):
            run_job(faulty_artifact, path, tmp_path / "out", workers=2)
        assert read_record(tmp_path / "out").input_lines == BLOCK_LINES
        return
    report = run_job(faulty_artifact, path, tmp_path / "out", workers=2, on_error=on_error)
    assert report.skipped == 1 and runners[0].stats()["requests"]["deaths"] == 0
    written = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    (error,) = [line for line in written if b'"error"' in line]
    assert json.loads(error) == {"line": 31, "id": "mine", "error": "the echo backend was told to fail (raise)"}
    assert b"".join(line for line in written if line != error) == expected(faulty_artifact, good)


def test_a_line_that_would_keep_a_worker_silent_goes_the_other_way(
    echo_artifact, questions, tmp_path, monkeypatch, runners
):
    go(BLOCKS, monkeypatch)
    monkeypatch.setattr(job_input, "BLOCK_BYTES", 3000)
    whole, cut = [], []
    submit_block, submit_together = Runner.submit_block, Runner.submit_together
    monkeypatch.setattr(Runner, "submit_block", lambda *asked: whole.append(asked[1]) or submit_block(*asked))
    monkeypatch.setattr(Runner, "submit_together", lambda *asked: cut.append(asked[1]) or submit_together(*asked))
    long = question_line("Who?", "Jim Henson. " * 1000)
    write(questions, [*question_lines(20), long, *question_lines(20)])
    run_job(echo_artifact, questions, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == expected(echo_artifact, questions)
    assert whole and cut and 21 not in [entry.line_number for block in whole for entry in block.entries]


def test_a_gpu_has_many_workers_and_what_they_write_is_no_matter_of_how_many(
    echo_artifact, questions, tmp_path, monkeypatch, runners
):
    """Real processes, of a backend that says to this one only that it runs on GPUs."""
    go(BLOCKS, monkeypatch)
    undisturbed = expected(echo_artifact, questions)
    monkeypatch.setattr(echo, "DEVICE", "cuda")
    monkeypatch.setattr(echo, "throughput_plan", lambda threads: ThroughputPlan(streams=1, rows=8, tokens=4096))
    monkeypatch.setattr(placement, "choose_variants", lambda artifact, name: artifact.variants)
    monkeypatch.setattr(placement, "physical_cores", lambda: 3)
    use_gpus(monkeypatch, Card("GPU-h100"))

    def stop(done, total):
        if (read_record(tmp_path / "out") or Record({}, True)).input_lines:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(echo_artifact, questions, tmp_path / "out", progress=stop)
    assert run_job(echo_artifact, questions, tmp_path / "out", workers=1).resumed_lines
    assert [[place.variables["CUDA_VISIBLE_DEVICES"] for place in runner.places] for runner in runners] == [
        ["GPU-h100"] * 3, ["GPU-h100"],
    ]  # fmt: skip
    assert [runner.places[0].threads for runner in runners] == [1, 3]
    assert (tmp_path / "out").read_bytes() == undisturbed


# A line with which every worker dies: one that holds the unknown token.

SITE = """
import os
from neuronbert.backends.echo import EchoSession

run = EchoSession.run

def deadly(self, batch):
    if (batch.input_ids == 100).any():
        os._exit(9)  # its own doing: of a kill that may be anybody's, ten are needed
    return run(self, batch)

EchoSession.run = deadly
"""


@pytest.fixture()
def poisoned(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    path = [str(tmp_path / "site"), str(Path(job.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    lines = question_lines(40)
    lines[20] = question_line("What?", "\U00013080")  # a hieroglyph
    return write(tmp_path / "questions", lines)


@pytest.mark.slow
@pytest.mark.usefixtures("way")
def test_a_line_that_kills_workers_is_the_only_error(echo_artifact, poisoned, tmp_path):
    skipped: List[Any] = []
    report = run_job(echo_artifact, poisoned, tmp_path / "out", on_error="skip", on_skip=skipped.append)
    assert [line.line_number for line in skipped] == [21]
    assert (report.answered, report.skipped) == (36, 1)
    lines = poisoned.read_text(encoding="utf-8").splitlines()
    good = write(tmp_path / "good", [*lines[:20], "", *lines[21:]])
    written = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    (error,) = [line for line in written if b'"error"' in line]
    assert json.loads(error) == {"line": 21, "error": "the workers that read it died"}  # the same in every run
    assert b"".join(line for line in written if line != error) == expected(echo_artifact, good)


@pytest.mark.slow
def test_a_line_that_kills_workers_is_named(echo_artifact, poisoned, tmp_path, monkeypatch):
    go(BLOCKS, monkeypatch)
    with pytest.raises(BackendFailed, match="^line 21: .*workers when they died"):
        run_job(echo_artifact, poisoned, tmp_path / "out")
    record = read_record(tmp_path / "out")
    assert record is not None and record.input_lines == BLOCK_LINES
    assert record_path(tmp_path / "out").exists()
