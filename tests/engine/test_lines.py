"""Lines of input as anybody might write them: a result, or an error that names the line, and output that is JSON."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert import Engine
from neuronbert.engine.lines import answer_lines
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks import lines as tasks_lines
from neuronbert.tasks.base import option_kinds, options_of
from neuronbert.tasks.line_formats import FORMATS, JSON_LINES
from neuronbert.tasks.lines import BoundedLines, SkippedLine, json_line, shown
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.question_answering.lines import LINES

CONTEXT = "Jim Henson built the first Kermit in 1955."
GOOD = {"id": 1, "question": "Who built Kermit?", "context": CONTEXT}

# Every text that JSON can spell, half a surrogate pair and NUL among it; every number, even those of no machine.
TEXT = st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Lu", "So"])), st.just("\ud83d\ude00 \udc80"))
NUMBER = st.one_of(st.integers(), st.integers(-(10**400), 10**400), st.floats())
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
FIELDS = ["id", "question", "context", *LINES.keywords]


@pytest.fixture(scope="module")
def engine(echo_artifact):
    with Engine(echo_artifact, threads=1, streams=1) as engine:
        yield engine


def answered(engine, data: bytes, on_error: str, line_format=JSON_LINES, **keywords):
    options = options_of(option_kinds(question_answering), keywords)
    documents, skipped = answer_lines(engine, io.BytesIO(data), *options, on_error, line_format=line_format)
    return list(documents), skipped


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(VALUE, st.dictionaries(st.one_of(st.sampled_from(FIELDS), TEXT), VALUE, max_size=4)), st.booleans())
def test_every_line_has_a_result_or_an_error(engine, value, completed):
    record = {**GOOD, **value} if completed and isinstance(value, dict) else value
    # Good lines before and behind it: what is broken must not touch them.
    data = "".join(json.dumps(one) + "\n" for one in (GOOD, record, GOOD)).encode("utf-8")
    documents, skipped = answered(engine, data, "skip")
    assert [document["line"] for document in documents] == [1, 2, 3]
    assert [line.document() for line in skipped] == [document for document in documents if "error" in document]
    assert "answer" in documents[0] and "answer" in documents[2]
    for document in documents:
        assert json.loads(json_line(document).encode("utf-8")) == json.loads(json.dumps(document))
        json_line(document.get("id")).encode("utf-8")
    if "id" in documents[1]:
        assert documents[1]["id"] == record["id"]
    try:
        answered(engine, data, "fail")
    except InputError as error:
        assert skipped and error.message.startswith("line 2: ")
    else:
        assert not skipped


@pytest.mark.parametrize("field", FIELDS)
@given(value=VALUE)
@settings(max_examples=40, deadline=None)
def test_every_field_takes_every_value_or_names_it(engine, field, value):
    data = (json.dumps(GOOD) + "\n" + json.dumps({**GOOD, field: value}) + "\n").encode("utf-8")
    documents, _ = answered(engine, data, "skip")
    assert len(documents) == 2
    if "error" in documents[1]:
        assert field in documents[1]["error"] or field.replace("_", " ") in documents[1]["error"]


HEADERS = {"jsonl": b"", "csv": b"question,context,top_k\n", "tsv": b"question\tcontext\ttop_k\n"}
PIECES = st.sampled_from([b"a", b",", b"\t", b"\n", b'"', b"\r", b"2", b"\xff", b"\0", "é".encode()])


@pytest.mark.parametrize("name", FORMATS)
@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join)), st.booleans())
@settings(max_examples=100, deadline=None)
def test_whatever_the_bytes_an_error_is_ours(engine, name, data, headed):
    for on_error in ("skip", "fail"):
        try:
            documents, _ = answered(engine, HEADERS[name] * headed + data, on_error, FORMATS[name])
        except (InputError, UsageError):
            continue
        assert documents


@pytest.mark.parametrize("depth", [900, 5000, 100_000])
@pytest.mark.parametrize("field", ["question", "id", "top_k", "other"])
def test_deep_nesting_is_an_error_of_its_line(engine, depth, field):
    nested = "[" * depth + "]" * depth
    others = "".join(f'"{key}": {json.dumps(text)}, ' for key, text in GOOD.items() if key != field)
    data = f'{json.dumps(GOOD)}\n{{{others}"{field}": {nested}}}\n'.encode()
    documents, _ = answered(engine, data, "skip")
    assert [document["line"] for document in documents] == [1, 2]
    assert "error" in documents[1] or field == "other"


def test_progress_counts_what_is_read_and_then_what_is_answered(engine):
    lines = "".join(json.dumps({**GOOD, "context": CONTEXT * (1 + number % 30)}) + "\n" for number in range(100))
    told = []
    results, _ = answer_lines(
        engine, io.BytesIO(lines.encode()), *options_of(option_kinds(question_answering), {}), "fail",
        lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(number, None) for number in range(1, 101)]
    assert len(list(results)) == 100
    answered = told[100:]
    assert answered[0] == (0, 100) and answered[-1] == (100, 100)
    assert answered == sorted(answered) and len(set(answered)) > 10  # it moves with the batches


def test_a_table_is_answered_as_the_same_json_lines_are(engine):
    records = [{**GOOD, "id": "1"}, {**GOOD, "question": "", "id": "é"}, {**GOOD, "context": "two\nlines, of text"},
               {**GOOD, "question": "why " * 600}, {**GOOD, "top_k": 2}]  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*GOOD, "top_k"])
    writer.writeheader()
    writer.writerows(records)
    lines = "".join(json.dumps({key: value for key, value in one.items() if value != ""}) + "\n" for one in records)
    expected, _ = answered(engine, lines.replace('"id": 1', '"id": "1"').encode(), "skip")
    found, skipped = answered(engine, text.getvalue().encode(), "skip", FORMATS["csv"])
    assert [document.pop("line") for document in found] == [2, 3, 4, 6, 7]
    assert [document.pop("line") for document in expected] == [1, 2, 3, 4, 5] and found == expected
    assert [line.line_number for line in skipped] == [3, 6]


@pytest.mark.parametrize("details", [True, False])
def test_the_columns_are_the_keys_that_results_may_have(engine, details):
    data = "".join(json.dumps({**GOOD, "top_k": top_k}) + "\n" for top_k in (1, 2)).encode()
    for top_k in (1, 3):
        documents, _ = answered(engine, data, "fail", details=details, top_k=top_k)
        _, options = options_of(option_kinds(question_answering), {"details": details, "top_k": top_k})
        keys = [key for document in documents for key in document if key not in ("line", "id")]
        assert keys == list(question_answering.columns({}, options))


def test_progress_counts_the_lines_of_a_table(engine):
    told = []
    data = b'question,context\nWho?,"Jim\nHenson"\n\nWho?,Jim\n'
    options = options_of(option_kinds(question_answering), {})
    results, _ = answer_lines(
        engine, io.BytesIO(data), *options, "fail", lambda done, total: told.append((done, total)), FORMATS["csv"]
    )
    assert len(list(results)) == 2 and told[:4] == [(2, None), (4, None), (5, None), (0, 2)]


@pytest.mark.parametrize("data", [b"", b"question,context\n", b"question,context", b"\n \n"])
def test_a_table_without_a_row_is_refused(engine, data):
    with pytest.raises(InputError, match="the input holds no question") as caught:
        answered(engine, data, "skip", FORMATS["csv"])
    assert "a header with the columns question and context" in str(caught.value.hint)


def test_a_reason_may_quote_anything():
    line = json_line(SkippedLine(3, "a \udc80 b", "é").document())
    assert json.loads(line.encode("utf-8")) == {"line": 3, "id": "é", "error": "a \udc80 b"}
    assert "é" in json_line({"id": "é"})


def test_what_cannot_be_shown_is_said():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "something too large to show"
    while nested:  # taken apart one by one: deleting it at once would nest as deep
        nested = nested[0]


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 20), st.integers(1, 7))
def test_bounded_lines_are_the_lines_with_long_ones_cut(parts, limit, step):
    """And every byte is seen once, in order, whether or not it was kept."""
    data, seen = b"\n".join(parts), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks_lines, "MAX_LINE_BYTES", limit)
        patch.setattr(tasks_lines, "PASS_OVER_BYTES", step)
        lines = list(BoundedLines(io.BytesIO(data), seen.append))
    assert lines == [line[: limit + 1] for line in io.BytesIO(data).readlines()]
    assert b"".join(seen) == data


@pytest.mark.parametrize("limit", [3, 40])
@pytest.mark.parametrize("more", ["\n", "d\n", "\nd\n"])
def test_lines_end_where_the_file_ended_even_if_it_grows(tmp_path, monkeypatch, limit, more):
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", limit)
    path = tmp_path / "lines"
    path.write_text("a\nlong one", encoding="utf-8")
    with open(path, "rb") as file:
        lines = BoundedLines(file)
        read = [lines.next(), lines.next()]
        lines.pass_over()
        with open(path, "a", encoding="utf-8") as writer:
            writer.write(more)
        assert read == [b"a\n", b"long one"[: limit + 1]] and lines.is_ended
        assert lines.next() == b""


def test_the_end_of_an_endless_line_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 1000)
    with open("/dev/zero", "rb") as file:
        lines = BoundedLines(file)
        assert len(lines.next()) == 1001 and lines.is_inside
