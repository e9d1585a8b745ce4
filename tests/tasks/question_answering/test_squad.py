import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.question_answering.lines import question_line, read_questions
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad, load_squad_data, squad_document

# A busy machine is no failure.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOOD = {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}
LINE = '{"question": "Who?", "context": "Ann did."}'


def document(*qas, context="Ann did.", **top):
    return {"data": [{"paragraphs": [{"context": context, "qas": list(qas)}]}], **top}


@pytest.fixture()
def write(tmp_path):
    def write(content):
        path = tmp_path / "data.json"
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(content)
        return path

    return write


def test_a_v1_file(write):
    assert load_squad_data(write(document(GOOD, version="1.1"))) == (
        "1.1",
        [SquadQuestion("q1", "Who?", "Ann did.", ("Ann",), False, (0,))],
    )


def test_a_v2_file(write):
    nobody = {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": []}
    data = load_squad_data(write(document(GOOD, nobody, version="v2.0")))
    assert data.version == "2.0"
    assert data.questions[1] == SquadQuestion("q2", "Why?", "Ann did.", (), True, ())


@pytest.mark.parametrize(
    ("top", "qas", "version"),
    [
        ({"version": "v2.0"}, [GOOD], "2.0"),
        ({"version": 1.1}, [GOOD], "1.1"),
        ({}, [GOOD], "1.1"),
        ({}, [{**GOOD, "answers": []}], "2.0"),
    ],
)
def test_the_version_is_the_files_word_or_follows_from_a_question_without_answer(write, top, qas, version):
    assert load_squad_data(write(document(*qas, **top))).version == version


def test_a_byte_order_mark_and_whole_number_ids_are_accepted(write):
    assert load_squad(write(b"\xef\xbb\xbf" + json.dumps(document({**GOOD, "id": 7})).encode()))[0].id == "7"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.json is empty"),
        (b" \n", "data.json is empty"),
        (b'{"data": [\n  {"paragraphs": ]}', r"not JSON: Expecting value at line 2, column 18"),
        (b'{"data": [], "a": "\xff"}', r"line 1 is not UTF-8 text \(byte 0xff\)"),
        (b'\xef\xbb\xbf{"data":\n"\xff"}', r"line 2 is not UTF-8 text \(byte 0xff\)"),
        (b"\x00\x01\x02", "is binary, not text"),
        (gzip.compress(b"{}", mtime=0), "is gzip-compressed"),
        ("{}".encode("utf-16"), "is UTF-16, not UTF-8"),
        (b"[" * 100_000, "cannot be read as JSON"),
        ([], r"top level: an object is expected here, not \[\]"),
        ({"version": "1.1"}, "top level: the key 'data' is missing"),
        ({"data": {}}, r"data: a list is expected here, not \{\}"),
        ({"data": [{}]}, r"data\[0\]: the key 'paragraphs' is missing"),
        ({"data": []}, "holds no question"),
        (document(GOOD, 5), r"data\[0\].paragraphs\[0\].qas\[1\]: an object is expected here, not 5"),
        (document(GOOD, context=""), r"data\[0\].paragraphs\[0\]: context is empty"),
        (document({**GOOD, "question": ""}), r"qas\[0\]: question is empty"),
        (document({**GOOD, "question": None}), r"qas\[0\]: question is null, not a string"),
        (
            document({**GOOD, "id": "q\ud800"}),
            r"qas\[0\]: id holds half of a surrogate pair \(\\ud800\) at character 1",
        ),
        (
            document({**GOOD, "question": "\ud800?"}),
            r"question holds half of a surrogate pair \(\\ud800\) at character 0",
        ),
        (document({"id": "q", "question": "Who?"}), r"qas\[0\]: the key 'answers' is missing"),
        (document({**GOOD, "answers": {"text": ["Ann"]}}), r"qas\[0\].answers: a list is expected here"),
        (document({**GOOD, "answers": [{"answer_start": 0}]}), r"answers\[0\]: the key 'text' is missing"),
        (
            document({**GOOD, "answers": [{"text": "Ann", "answer_start": "0"}]}),
            r'answer_start is "0", not a whole number',
        ),
        (document({"question": "Who?", "answers": []}), r"qas\[0\]: the key 'id' is missing"),
        (document({**GOOD, "id": ["q1"]}), r'qas\[0\]: id is \["q1"\], not a string'),
        (document(GOOD, GOOD, GOOD), r"uses the id 'q1' more than once and 1 more"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(write, content, message):
    with pytest.raises(InputError, match=message) as caught:
        load_squad(write(content))
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_json_lines_in_the_place_of_squad_are_recognised(write):
    with pytest.raises(InputError) as caught:
        load_squad(write(f"{LINE}\n{LINE}\n"))
    assert "neuronbert answer --input" in caught.value.hint


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="there is no file .*absent.json"):
        load_squad(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is a folder, not a file"):
        load_squad(tmp_path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a named pipe, not a file"):
        load_squad(tmp_path / "pipe")


def test_squad_document_writes_what_load_squad_reads(write):
    questions = [
        SquadQuestion("a", "Who?", "Ann did.", ("Ann",), False, (0,)),
        SquadQuestion("b", "What?", "Ann did.", (), True),
        SquadQuestion("c", "Où ?", "À Paris — là.", ("Paris", "À Paris"), False, (2, 0)),
    ]
    assert load_squad_data(write(squad_document(questions, "2.0"))) == ("2.0", questions)


def test_lines_are_read_with_their_numbers_ids_and_keywords():
    lines = [
        b'\xef\xbb\xbf{"question": "Who?", "context": "Ann did.", "id": "x"}\n',
        b"\n",
        b'{"question": "Why?", "context": "So.", "id": 3, "top_k": 2, "align_to_words": true, "title": "t"}\r\n',
    ]
    first, second = read_questions(lines)
    assert first == (1, "x", ("Who?", "Ann did."), {})
    assert second == (3, 3, ("Why?", "So."), {"top_k": 2, "align_to_words": True})


def test_lines_may_be_text():
    assert [line.input.question for line in read_questions(["\ufeff" + LINE, LINE])] == ["Who?", "Who?"]


BAD_LINES = [
    ('{"question": "Who?"', "not JSON (Expecting ',' delimiter at column 20)"),
    ("[1]", "a JSON object is expected, not [1]"),
    ('{"context": "c"}', "the key 'question' is missing"),
    ('{"question": "q"}', "the key 'context' is missing"),
    ('{"question": "", "context": "c"}', "question is empty"),
    ('{"question": "q", "context": ""}', "context is empty"),
    (b'{"question": "q\0", "context": "c"}', "a NUL byte at column 16"),
    ('{"question": "q", "context": "c"}\0', "a NUL byte at column 34"),
    ('{"question": 5, "context": "c"}', "question is 5, not a string"),
    ('{"question": "q", "context": "\\ud83d"}', "context holds half of a surrogate pair (\\ud83d) at character 0"),
    ('{"question": "q", "context": "c", "id": [1]}', "id is [1], neither a string nor a whole number"),
    ('{"question": "q", "context": "c", "top_k": "3"}', 'top_k is "3", not a whole number'),
    ('{"question": "q", "context": "c", "top_k": true}', "top_k is true, not a whole number"),
    ('{"question": "q", "context": "c", "align_to_words": 1}', "align_to_words is 1, not true or false"),
    ("[" * 100_000, "cannot be read as JSON"),
    (b'{"question": "\xff", "context": "c"}', "not UTF-8 text (byte 0xff)"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
def test_a_broken_line_is_named_by_its_number(bad, reason):
    reader = read_questions([LINE, bad, LINE])
    iterator = iter(reader)
    assert next(iterator).line_number == 1
    with pytest.raises(InputError) as caught:
        next(iterator)
    assert caught.value.message.startswith("line 2")
    assert reason in caught.value.message
    assert "--on-error skip" in caught.value.hint


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
def test_skip_yields_the_good_lines_and_keeps_the_bad_ones(bad, reason):
    reader = read_questions([LINE, bad, LINE, "", bad], on_error="skip")
    assert [line.line_number for line in reader] == [1, 3]
    assert [line.line_number for line in reader.skipped] == [2, 5]
    assert reason in reader.skipped[0].reason
    assert not reader.skipped[0].reason.startswith("line")


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"\x7fELF\x00\x00"], "line 1 of the input is binary"),
        ([gzip.compress(LINE.encode(), mtime=0)], "line 1 of the input is gzip-compressed"),
        ([LINE.encode("utf-16")], "line 1 of the input is UTF-16"),
        (["\0"], "line 1 of the input is binary"),
    ],
)
def test_binary_input_is_refused_whatever_on_error_says(on_error, lines, message):
    with pytest.raises(InputError, match=message):
        list(read_questions(lines, on_error))


def test_bad_lines_before_the_first_question_are_skipped_too():
    reader = read_questions(["{", LINE], on_error="skip")
    assert [line.line_number for line in reader] == [2]


def test_binary_input_behind_broken_lines_is_refused_under_skip():
    with pytest.raises(InputError, match="line 2 of the input is binary"):
        list(read_questions([b"\x7fELF\x02\n", b"\x00\x00"], on_error="skip"))


def test_white_space_is_a_text_to_lines_as_it_is_to_the_engine(echo_artifact):
    from neuronbert.engine.engine import Engine

    lines = [question_line(" ", "Ann did."), question_line("Who?", "\n\t "), question_line(" ", "\u00a0")]
    pairs = [line.input for line in read_questions(lines)]
    assert len(pairs) == 3
    with Engine(echo_artifact, threads=1) as engine:
        answers = engine.answer(pairs)
    assert answers[0][0]["answer"] in ("Ann", "did.", "Ann did.")
    assert [found["answer"].strip() for one in answers[1:] for found in one] == ["", ""]


def test_on_error_is_checked_at_once():
    with pytest.raises(UsageError, match="on_error is 'stop'"):
        read_questions([], on_error="stop")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@UNTIMED
@given(TEXT, TEXT, st.one_of(st.none(), st.integers(), st.text(st.characters(exclude_categories=["Cs"]))))
def test_question_line_reads_back_whatever_the_text(question, context, id):
    line = question_line(question, context, id, top_k=3)
    assert "\n" not in line and "\r" not in line
    assert list(read_questions([line.encode()])) == [(1, id, (question, context), {"top_k": 3})]


@UNTIMED
@given(st.lists(st.binary()))
def test_no_bytes_at_all_raise_anything_but_an_input_error(lines):
    try:
        list(read_questions(lines, on_error="skip"))
    except InputError as error:
        assert "binary" in error.message or "gzip" in error.message or "UTF-16" in error.message
