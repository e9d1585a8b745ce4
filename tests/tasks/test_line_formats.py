"""The formats of lines: a table has the inputs that JSON lines have, and its results are those of JSON lines."""

import csv
import io
import json
from typing import Any, Dict, List, Optional, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.cli.main import cli
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks import TASKS, load_task
from neuronbert.tasks.base import LineForm
from neuronbert.tasks.line_formats import FORMATS, JSON_LINES, LineFormat, line_format
from neuronbert.tasks.lines import BoundedLines, InputLine, LineReader, SkippedLine
from neuronbert.tasks.question_answering.lines import LINES as QUESTIONS
from neuronbert.tasks.question_answering.lines import Pair
from neuronbert.tasks.text_classification.inputs import Ranking
from neuronbert.tasks.text_classification.lines import LINES as TEXTS
from neuronbert.tasks.token_classification.lines import LINES as SENTENCES

CSV, TSV = FORMATS["csv"], FORMATS["tsv"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
# Without what cannot be in a cell that nothing quotes.
PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\r\n"), min_size=1, max_size=20)
COUNT = st.integers(-5, 10**20)


def reader_of(data: Any, chosen: LineFormat, form: LineForm, on_error: str = "fail") -> LineReader:
    file = io.BytesIO(data if isinstance(data, bytes) else data.encode("utf-8"))
    entries = chosen.entries(BoundedLines(file).numbered(), form)
    return LineReader(entries, form, chosen.hint(form), on_error)


def read(data: Any, chosen: LineFormat = CSV, form: LineForm = QUESTIONS) -> List[InputLine]:
    return list(reader_of(data, chosen, form))


def without_places(lines: Sequence[InputLine]) -> List[Any]:
    return [line[1:] for line in lines]


def csv_of(records: Sequence[Dict[str, Any]], newline: str = "\n", bom: bool = False) -> str:
    """As Python's csv writes them: None is an empty cell, and what is no text is as JSON writes it."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator=newline, quoting=csv.QUOTE_ALL, restval="")
    writer.writeheader()
    for record in records:
        there = {key: value for key, value in record.items() if value is not None}
        writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in there.items()})
    return ("\ufeff" if bom else "") + text.getvalue()


def json_lines_of(records: Sequence[Dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def optional(**values: Any) -> Any:
    return st.fixed_dictionaries({}, optional={key: st.one_of(st.none(), value) for key, value in values.items()})


def record_of(needed: Any, others: Any) -> Any:
    return st.tuples(needed, others).map(lambda parts: {**parts[0], **parts[1]})


QUESTION = record_of(
    st.fixed_dictionaries({"question": TEXT, "context": TEXT}),
    optional(id=TEXT, top_k=COUNT, doc_stride=COUNT, align_to_words=st.booleans(), note=TEXT),
)
ANY_TEXT = st.one_of(
    record_of(st.fixed_dictionaries({"text": TEXT}), optional(id=TEXT, text_pair=TEXT, function_to_apply=TEXT)),
    record_of(
        st.fixed_dictionaries({"query": TEXT, "texts": st.lists(TEXT, min_size=1, max_size=3)}),
        optional(id=TEXT, top_k=COUNT, return_texts=st.booleans()),
    ),
)


@given(st.lists(QUESTION, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]), st.booleans())
@example([{"question": 'a "b",\n\r\nc\r', "context": "\ufeff\u2028"}], "\r\n", True)
def test_a_table_of_questions_has_the_inputs_of_json_lines(records: List[Any], newline: str, bom: bool) -> None:
    found = read(csv_of(records, newline, bom))
    assert without_places(found) == without_places(read(json_lines_of(records), JSON_LINES))


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_a_table_of_texts_pairs_and_rankings_too(records: List[Any]) -> None:
    found = read(csv_of(records), form=TEXTS)
    assert without_places(found) == without_places(read(json_lines_of(records), JSON_LINES, TEXTS))


@given(st.lists(st.fixed_dictionaries({"text": PLAIN_TEXT, "text_pair": PLAIN_TEXT}), min_size=1, max_size=4))
@example([{"text": '"', "text_pair": '""'}])
def test_a_tab_separated_table_quotes_nothing(records: List[Any]) -> None:
    data = "text\ttext_pair\n" + "".join(f"{one['text']}\t{one['text_pair']}\n" for one in records)
    assert without_places(read(data, TSV, TEXTS)) == without_places(read(json_lines_of(records), JSON_LINES, TEXTS))


def test_lists_are_json_in_their_cells() -> None:
    data = 'query,texts\nq,"[""a"", ""b, c""]"\n'
    assert read(data, form=TEXTS)[0].input == Ranking("q", ("a", "b, c"))
    assert read('tokens\n"[""Jim"", ""Henson""]"\n', form=SENTENCES)[0].input == "Jim Henson"
    broken = reader_of('id,query,texts\n1,q,a\n2,q,"[""a"", 5]"\n3,q,[a]\n4,q,\n', CSV, TEXTS, "skip")
    assert list(broken) == []
    assert [(line.id, line.reason) for line in broken.skipped] == [
        ("1", 'texts is "a", not a list'),
        ("2", "texts[1] is 5, not a string"),
        ("3", 'texts is "[a]", not a list'),
        ("4", "the key 'texts' is missing"),
    ]


@pytest.mark.parametrize(
    ("key", "cell", "value"),
    [
        ("top_k", "3", 3),
        ("top_k", " -3 ", -3),
        ("top_k", "", None),
        ("top_k", "null", None),
        ("top_k", "3.0", "top_k is 3.0, not a whole number"),
        ("top_k", "three", 'top_k is "three", not a whole number'),
        ("top_k", "1_0", 'top_k is "1_0", not a whole number'),
        ("top_k", "true", "top_k is true, not a whole number"),
        ("top_k", "[1]", "top_k is [1], not a whole number"),
        ("top_k", "9" * 5000, f'top_k is "{"9" * 56}..., not a whole number'),
        ("top_k", "[" * 100_000, f'top_k is "{"[" * 56}..., not a whole number'),
        ("align_to_words", "true", True),
        ("align_to_words", "FALSE", False),
        ("align_to_words", "True", True),
        ("align_to_words", "yes", 'align_to_words is "yes", not true or false'),
        ("align_to_words", "1", "align_to_words is 1, not true or false"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_cell_of_an_option_is_of_its_type(key: str, cell: str, value: Any) -> None:
    reader = reader_of(f"question,context,{key}\nq,c,{cell}\n", CSV, QUESTIONS, "skip")
    found = list(reader)
    if isinstance(value, str):
        assert found == [] and reader.skipped == [SkippedLine(2, value)]
    else:
        assert found == [InputLine(2, None, Pair("q", "c"), {} if value is None else {key: value})]


def test_other_cells_are_texts_whatever_they_look_like() -> None:
    data = "id,text,text_pair,function_to_apply,label\n007,1.50,null,none,x\n"
    assert read(data, form=TEXTS) == [InputLine(2, "007", ("1.50", "null"), {"function_to_apply": "none"})]


def test_a_row_is_a_line_where_it_begins() -> None:
    data = '\n\nquestion,context\n"a\nb",c\n\nd,e\n,\nf,g'
    reader = reader_of(data, CSV, QUESTIONS, "skip")
    assert [line.line_number for line in reader] == [4, 7, 9]
    assert reader.skipped == [SkippedLine(8, "the key 'question' is missing")]  # a row of empty cells is no blank line


def test_a_broken_row_ends_the_reading_or_is_skipped() -> None:
    data = 'id,question,context\n1,a,b\n2,c\n3,d,"e"f\n4,,g\n5,h,i,j\n6,k,l\n'
    reader = reader_of(data, CSV, QUESTIONS, "skip")
    assert [line.id for line in reader] == ["1", "6"]
    assert reader.skipped == [
        SkippedLine(3, "2 columns, where the header has 3"),
        SkippedLine(4, "no row of a table (',' expected after '\"')"),
        SkippedLine(5, "the key 'question' is missing", "4"),
        SkippedLine(6, "4 columns, where the header has 3"),
    ]
    with pytest.raises(InputError) as caught:
        read(data)
    assert caught.value.message == "line 3: 2 columns, where the header has 3"
    assert caught.value.hint == (
        'a header with the columns question and context ("id" if you like), separated by commas, and a row for each; '
        "or --on-error skip"
    )


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_row_without_an_end_is_never_skipped(monkeypatch: pytest.MonkeyPatch, on_error: str) -> None:
    monkeypatch.setattr("neuronbert.tasks.lines.MAX_LINE_BYTES", 60)
    reader = iter(reader_of('question,context\na,b\nc,"d\n' + "question,context\n" * 9, CSV, QUESTIONS, on_error))
    assert next(reader).line_number == 2
    with pytest.raises(InputError, match="^line 3: a row of more than 0 MiB: is a quotation mark never closed"):
        next(reader)


# ---- the header


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        (QUESTIONS, "question,text\na,b\n", "no column 'context' in the header, which has 'question', 'text'"),
        (QUESTIONS, "question;context\na;b\n", "no column 'question' in the header, which has 'question;context'"),
        (QUESTIONS, "Question,context\na,b\n", "no column 'question' in the header, which has 'Question', 'context'"),
        (QUESTIONS, "what,why\n", "no column 'question' in the header"),
        (TEXTS, "text_pair,label\na,b\n", "no column 'text' in the header, which has 'text_pair', 'label'"),
        (TEXTS, "query,label\na,b\n", "no column 'texts' in the header"),
        (TEXTS, "id,texts\na,b\n", "no column 'query' in the header"),
        (SENTENCES, "words\na\n", "no column 'text' in the header"),
        (QUESTIONS, "\nquestion,context,question\n", "line 2: the header has the column 'question' twice"),
        (QUESTIONS, 'question,"context\n', "line 1: a quotation mark is opened and never closed"),
        (QUESTIONS, b"question,context\xff\n", "line 1: not UTF-8 text (byte 0xff)"),
        (QUESTIONS, b"\x1f\x8b\x08\x00", "line 1 of the input is gzip-compressed"),
        (QUESTIONS, "question,context\n".encode("utf-16"), "line 1 of the input is UTF-16, not UTF-8"),
        (QUESTIONS, b"PK\x03\x04\0\0", "line 1 of the input is binary, not text"),
    ],
)
def test_a_header_that_will_not_do_is_refused(form: LineForm, data: Any, message: str, on_error: str) -> None:
    with pytest.raises(InputError) as caught:
        reader_of(data, CSV, form, on_error)
    assert message in caught.value.message and caught.value.hint


def test_the_hint_has_the_columns_and_what_separates_them() -> None:
    assert CSV.hint(TEXTS).startswith(
        'a header with the columns text, or query and texts ("id" if you like), separated'
    )
    assert "separated by commas" in CSV.hint(TEXTS) and "separated by tabs" in TSV.hint(TEXTS)
    assert JSON_LINES.hint(TEXTS) == f"{TEXTS.hint}, or --input-format csv for a table"


@pytest.mark.parametrize(
    "columns", ["question,context", "context,a,question,b", " question , context ,id", "question,context,"]
)
def test_columns_may_stand_in_any_order_among_others(columns: str) -> None:
    (line,) = read(f"{columns}\n{','.join(name.strip() for name in columns.split(','))}\n")
    assert line.input == Pair("question", "context")


@pytest.mark.parametrize("data", ["", "\n", "question,context", "question,context\n\n"])
def test_a_table_without_a_row_holds_no_input(data: str) -> None:
    assert read(data) == []


# ---- results

COLUMNS = ("score", "answer", "answers", "truncated")
VALUE = st.one_of(st.none(), TEXT, st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(TEXT, max_size=2))
DOCUMENT = record_of(
    st.fixed_dictionaries({"line": st.integers(1, 10**9)}),
    st.fixed_dictionaries(
        {}, optional={"id": st.one_of(TEXT, st.integers()), "error": TEXT, **dict.fromkeys(COLUMNS, VALUE)}
    ),
)


def in_cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@given(st.lists(DOCUMENT, max_size=4))
def test_a_table_of_results_is_read_by_others(documents: List[Dict[str, Any]]) -> None:
    text = CSV.head(COLUMNS) + "".join(CSV.line(document, COLUMNS) for document in documents)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    names = ["line", "id", *COLUMNS, "error"]
    assert reader.fieldnames == names
    assert list(reader) == [{name: in_cell(document.get(name)) for name in names} for document in documents]


def test_results_are_written_so() -> None:
    documents = [
        {"line": 2, "id": 7, "score": 0.25, "answer": 'a "b",\nc'},
        {"line": 5, "answers": [{"answer": "é"}], "truncated": True},
        {"line": 6, "id": "x", "error": "half \udc80"},
    ]
    assert CSV.head(COLUMNS) + "".join(CSV.line(document, COLUMNS) for document in documents) == (
        "line,id,score,answer,answers,truncated,error\n"
        '2,7,0.25,"a ""b"",\nc",,,\n'
        '5,,,,"[{""answer"": ""é""}]",true,\n'
        "6,x,,,,,half \\udc80\n"
    )
    assert TSV.head(("answer",)) + TSV.line({"line": 2, "answer": 'a\t"b"\r\nc'}, ("answer",)) == (
        'line\tid\tanswer\terror\n2\t\ta "b"  c\t\n'
    )
    assert JSON_LINES.head(COLUMNS) == "" and JSON_LINES.line(documents[0], ()) == json_lines_of(documents[:1])


def test_no_key_of_a_result_is_lost() -> None:
    with pytest.raises(ValueError, match="'label'"):
        CSV.line({"line": 1, "label": "calm"}, COLUMNS)


@pytest.mark.parametrize("task", TASKS)
def test_the_keys_of_a_line_are_not_among_those_of_results(task: str) -> None:
    columns = load_task(task).columns({"model_type": "bert", "hidden_size": 8}, load_task(task).DECODE_OPTIONS())
    assert columns and not {"line", "id", "error"} & set(columns) and len(set(columns)) == len(columns)


@pytest.mark.parametrize("task", TASKS)
def test_what_a_line_needs_makes_a_line(task: str) -> None:
    """``needs`` and ``lists`` say the same as ``fault``."""
    form = load_task(task).LINES
    for keys in form.needs:
        record: Dict[str, Any] = {key: ["a"] if key in form.lists else "a" for key in keys}
        assert form.fault(record) is None
        for key in keys:
            assert form.fault({other: value for other, value in record.items() if other != key}) is not None


# ---- which one


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        (None, "a.csv", "csv"), (None, "b/a.TSV", "tsv"), (None, "a.jsonl", "jsonl"), (None, "-", "jsonl"),
        (None, "a.txt", "jsonl"), (None, "csv", "jsonl"), (None, "a.csv.gz", "jsonl"), (None, "a.csv/b", "jsonl"),
        ("tsv", "a.csv", "tsv"), ("csv", "-", "csv"), ("jsonl", "a.csv", "jsonl"),
    ],
)  # fmt: skip
def test_a_format_is_named_or_is_that_of_the_suffix(name: Optional[str], path: str, expected: str) -> None:
    assert line_format("input_format", name, path).name == expected


@pytest.mark.parametrize("name", ["xlsx", "CSV", "", 5])
def test_an_unknown_format_is_refused_with_those_that_there_are(name: Any) -> None:
    with pytest.raises(UsageError, match="^output_format is ") as caught:
        line_format("output_format", name, "a.csv")
    assert caught.value.hint == "jsonl, csv, tsv"


def test_the_command_line_offers_all_of_them() -> None:
    for verb in ("answer", "classify", "rerank", "tag", "embed", "run"):
        options = {option.name: option for option in cli.commands[verb].params}
        for name in ("input_format", "output_format"):
            more = [] if name == "input_format" else ["npy", "parquet"]
            assert list(options[name].type.choices) == [*FORMATS, *more]  # type: ignore[attr-defined]
