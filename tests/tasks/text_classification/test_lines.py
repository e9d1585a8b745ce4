"""Lines of JSON: every form of an input, the options that a line may set, and what is wrong with a broken one."""

import json
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import InputError
from neuronbert.tasks.lines import InputLine, read_lines
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.text_classification.inputs import Ranking
from neuronbert.tasks.text_classification.lines import LINES
from neuronbert.tasks.text_classification.task import call_arguments

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def read(line: Dict[str, Any]) -> InputLine:
    (one,) = read_lines([json.dumps(line)], LINES)
    return one


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ({"text": "a"}, "a"),
        ({"text": "a", "text_pair": None}, "a"),
        ({"text": "a", "text_pair": "b"}, TextPair("a", "b")),
        ({"query": "q", "texts": ["a", "b"]}, Ranking("q", ("a", "b"))),
        ({"text": "a", "label": "calm", "anything": [1]}, "a"),
    ],
)
def test_a_line_of_each_form(line: Dict[str, Any], asked: Any) -> None:
    assert read({"id": "x", **line}) == InputLine(1, "x", asked, {})


@given(st.one_of(TEXT.map(lambda text: {"text": text}),
                 st.fixed_dictionaries({"text": TEXT, "text_pair": TEXT}),
                 st.fixed_dictionaries({"query": TEXT, "texts": st.lists(TEXT, min_size=1)})))  # fmt: skip
def test_a_line_says_what_its_input_holds(line: Dict[str, Any]) -> None:
    names = ("text", "text_pair") if "text" in line else ("query", "texts")
    assert list(call_arguments(read(line).input)) == [line[name] for name in names if name in line]


def test_the_options_that_a_line_sets() -> None:
    options = {"top_k": 3, "function_to_apply": "none", "max_length": 16, "return_texts": True}
    assert read({"text": "a", **options}).keywords == options
    assert read({"text": "a", **dict.fromkeys(options)}).keywords == {}
    assert read({"text": "a", "doc_stride": 8}).keywords == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({}, "the key 'text' is missing"),
        ({"question": "who?", "context": "jim"}, "the key 'text' is missing"),
        ({"text_pair": "b"}, "the key 'text' is missing"),
        ({"text": ""}, "text is empty"),
        ({"text": None}, "text is null, not a string"),
        ({"text": ["a"]}, 'text is ["a"], not a string'),
        ({"text": "a", "text_pair": ""}, "text_pair is empty"),
        ({"text": "a", "text_pair": 5}, "text_pair is 5, not a string"),
        ({"text": "\ud800"}, r"text holds half of a surrogate pair (\ud800) at character 0"),
        ({"text": "a", "text_pair": "ab\udc00"}, r"text_pair holds half of a surrogate pair (\udc00) at character 2"),
        ({"query": "q"}, "the key 'texts' is missing"),
        ({"texts": ["a"]}, "the key 'query' is missing"),
        ({"text": "a", "texts": ["a"]}, "the key 'query' is missing"),
        ({"query": "q", "texts": "a"}, 'texts is "a", not a list'),
        ({"query": "q", "texts": None}, "texts is null, not a list"),
        ({"query": "q", "texts": []}, "texts is empty"),
        ({"query": "", "texts": ["a"]}, "query is empty"),
        ({"query": None, "texts": ["a"]}, "query is null, not a string"),
        ({"query": "q", "texts": ["a", ""]}, "texts[1] is empty"),
        ({"query": "q", "texts": ["a", "b", 5]}, "texts[2] is 5, not a string"),
        ({"query": "q", "texts": ["\udfff"]}, r"texts[0] holds half of a surrogate pair (\udfff) at character 0"),
        ({"text": "a", "top_k": "3"}, 'top_k is "3", not a whole number'),
        ({"text": "a", "top_k": True}, "top_k is true, not a whole number"),
        ({"text": "a", "top_k": 1.5}, "top_k is 1.5, not a whole number"),
        ({"text": "a", "function_to_apply": 1}, "function_to_apply is 1, not a string"),
        ({"text": "a", "return_texts": 1}, "return_texts is 1, not true or false"),
        ({"text": "a", "max_length": [8]}, "max_length is [8], not a whole number"),
        ({"text": "a", "id": 1.5}, "id is 1.5, neither a string nor a whole number"),
    ],
)
def test_a_broken_line_says_what_is_wrong(line: Dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read(line)
    assert caught.value.message == f"line 1: {reason}"
    assert '{"text": "..."}' in str(caught.value.hint) and '"query"' in str(caught.value.hint)


def test_a_broken_line_can_be_left_out() -> None:
    lines = ['{"text": "a"}', "{}", '{"query": "q", "texts": ["b"]}', '{"id": 7, "text": ""}', "not JSON"]
    reader = read_lines(lines, LINES, on_error="skip")
    assert [line.line_number for line in reader] == [1, 3]
    assert [(line.line_number, line.id) for line in reader.skipped] == [(2, None), (4, 7), (5, None)]


def test_the_shortest_line_is_one() -> None:
    assert read(json.loads(LINES.example.replace("...", '"a"'))).input == "a"
