"""Files of labelled texts: the names that their columns have, and labels by name, number and score."""

import json
from pathlib import Path
from typing import Any, List

import pytest

from neuronbert.errors import InputError
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.text_classification.data import LabelledText, RawText, labelled, load_raw, load_texts
from neuronbert.tasks.text_classification.inputs import Ranking
from neuronbert.tasks.text_classification.problem import Problem, problem_of

NAMES = {"id2label": {"0": "calm", "1": "glad", "2": "cross"}}
SINGLE = problem_of(NAMES)
MULTI = problem_of({**NAMES, "problem_type": "multi_label_classification"})
SCORE = problem_of({"id2label": {"0": "similarity"}})


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    lines = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
    path.write_text(lines, encoding="utf-8")
    return path


# ---- the forms of well-known data sets


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("ours.csv", "text,label\na,calm\n", RawText(2, "a", "calm")),
        ("ours.csv", "text,text_pair,label\na,b,1\n", RawText(2, TextPair("a", "b"), "1")),
        ("banking77.csv", "text,category\nI lost my card,lost_card\n", RawText(2, "I lost my card", "lost_card")),
        ("sst2.tsv", "sentence\tlabel\nhide new\t0\n", RawText(2, "hide new", "0")),
        (
            "stsb.tsv",
            "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t2.5\n",
            RawText(2, TextPair("a", "b"), "2.5"),
        ),
        (
            "mrpc.tsv",
            '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tsaid "a\tb"\n',
            RawText(2, TextPair('said "a', 'b"'), "1"),
        ),
        ("rte.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 1}], RawText(1, TextPair("a", "b"), 1)),
        ("go_emotions.jsonl", [{"text": "a", "labels": [0, 2]}], RawText(1, "a", [0, 2])),
        ("clinc.jsonl", [{"text": "a", "intent": "calm"}], RawText(1, "a", "calm")),
        ("unlabelled.csv", "text\na\n", RawText(2, "a", None)),
        ("unlabelled.csv", "text,label,text_pair\na,,\n", RawText(2, "a", None)),
        ("both.jsonl", [{"text": "a", "sentence": "b", "label": 0, "score": 1}], RawText(1, "a", 0)),
    ],
)
def test_columns_go_by_many_names(tmp_path: Path, name: str, content: Any, first: RawText) -> None:
    assert load_raw(write(tmp_path, name, content)) == [first]


def test_the_first_texts_only(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\na\nb\nc\n")
    assert [raw.asked for raw in load_raw(path, 2)] == ["a", "b"]
    assert len(load_raw(path, 9)) == len(load_raw(path)) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "utterance,intent\na,b\n", " has no column 'text'; it has 'utterance', 'intent'"),
        ("a.jsonl", [{"question": "who?", "label": 1}], " has no column 'text'; it has 'question', 'label'"),
        ("a.csv", "text,label\na,1\n,2\n", ", line 3: text is missing or empty"),
        ("a.jsonl", [{"text": "a"}, {"label": 1}], ", line 2: text is missing or empty"),
        ("a.jsonl", [{"text": 5}], ", line 1: text is 5, no text"),
        ("a.jsonl", [{"text": ["a", "b"]}], ", line 1: text is ['a', 'b'], no text"),
        ("a.jsonl", [{"text": "a", "text_pair": 5}], ", line 1: text_pair is 5, no text"),
        ("a.jsonl", [{"text": "a", "sentence2": False}], ", line 1: text_pair is False, no text"),
    ],
)
def test_a_record_without_its_text_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        load_raw(path)
    assert caught.value.message == f"{path}{message}" and "text, label" in str(caught.value.hint)


# ---- labels


def label_of(label: Any, problem: Problem) -> Any:
    return labelled(RawText(7, "a", label), problem, "file.csv").label


@pytest.mark.parametrize(
    ("label", "problem", "number"),
    [
        ("glad", SINGLE, 1),
        ("2", SINGLE, 2),
        (0, SINGLE, 0),
        (None, SINGLE, None),
        ("cross|calm", MULTI, (0, 2)),
        ("glad", MULTI, (1,)),
        ("2|0|glad", MULTI, (0, 1, 2)),
        ("cross|", MULTI, (2,)),
        (["cross", "calm"], MULTI, (0, 2)),
        ([2, 0], MULTI, (0, 2)),
        (["1"], MULTI, (1,)),
        (1, MULTI, (1,)),
        ([], MULTI, ()),
        (None, MULTI, None),
        ("2.5", SCORE, 2.5),
        (" -1e-3 ", SCORE, -0.001),
        (4, SCORE, 4.0),
        (0.0, SCORE, 0.0),
        (None, SCORE, None),
    ],
)
def test_a_label_is_counted_as_the_problem_does(label: Any, problem: Problem, number: Any) -> None:
    read = label_of(label, problem)
    assert read == number and type(read) is type(number)


@pytest.mark.parametrize(
    ("label", "problem", "message"),
    [
        ("happy", SINGLE, "the checkpoint has no label 'happy'; it has calm, glad, cross"),
        (3, SINGLE, "the checkpoint has no label 3; it has calm, glad, cross"),
        ("calm|glad", SINGLE, "the checkpoint has no label 'calm|glad'; it has calm, glad, cross"),
        ([0], SINGLE, "the checkpoint has no label [0]; it has calm, glad, cross"),
        (1.0, SINGLE, "the checkpoint has no label 1.0; it has calm, glad, cross"),
        ("calm|happy", MULTI, "the checkpoint has no label 'happy'; it has calm, glad, cross"),
        ([0, 3], MULTI, "the checkpoint has no label 3; it has calm, glad, cross"),
        ([None], MULTI, "the checkpoint has no label None; it has calm, glad, cross"),
        # A 0 or 1 for each label.
        ([0, 1, 1], MULTI, "the labels [0, 1, 1] name one twice"),
        ([0.0, 1.0, 1.0], MULTI, "the checkpoint has no label 0.0; it has calm, glad, cross"),
        ("calm|calm", MULTI, "the labels 'calm|calm' name one twice"),
        ("good", SCORE, "the label 'good' is no score"),
        ("nan", SCORE, "the label 'nan' is no score"),
        ("inf", SCORE, "the label 'inf' is no score"),
        (True, SCORE, "the label True is no score"),
        ([1.0], SCORE, "the label [1.0] is no score"),
        (10**400, SCORE, "the label 1000"),
    ],
)
def test_a_label_that_is_none_is_named_with_its_line(label: Any, problem: Problem, message: str) -> None:
    with pytest.raises(InputError) as caught:
        label_of(label, problem)
    assert caught.value.message.startswith(f"file.csv, line 7: {message}") and caught.value.hint


def test_a_text_keeps_its_form() -> None:
    assert labelled(RawText(1, TextPair("a", "b"), "1"), SINGLE, "f") == LabelledText(TextPair("a", "b"), 1)


# ---- inputs without labels


@pytest.mark.parametrize(
    ("name", "content", "inputs"),
    [
        ("a.csv", "text,text_pair,label\na,b,1\nc,,2\n", [TextPair("a", "b"), "c"]),
        ("a.tsv", "sentence\na\n", ["a"]),
        ("a.jsonl", [{"sentence": "a", "label": "whatever"}], ["a"]),
        (
            "a.jsonl",
            [{"query": "q", "texts": ["a", "b"]}, {"text": "c", "text_pair": "d"}],
            [Ranking("q", ("a", "b")), TextPair("c", "d")],
        ),
        ("a.jsonl", [{"text": "a"}, {"query": "q", "texts": ["b"]}], ["a", Ranking("q", ("b",))]),
    ],
)
def test_inputs_of_a_file(tmp_path: Path, name: str, content: Any, inputs: List[Any]) -> None:
    assert load_texts(write(tmp_path, name, content)) == inputs


def test_a_ranking_of_a_file_that_is_broken_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", [{"query": "q", "texts": ["a"]}, {"query": "q", "texts": []}])
    with pytest.raises(InputError) as caught:
        load_texts(path)
    assert caught.value.message == f"{path}, line 2: texts is empty" and "query" in str(caught.value.hint)
