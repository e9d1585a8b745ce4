"""Files of pairs, searches and texts, and what is wrong with others."""

import json
from pathlib import Path
from typing import Any, List

import pytest

from neuronbert.errors import InputError
from neuronbert.tasks.feature_extraction.data import (
    ScoredPair,
    Search,
    is_search,
    load_pairs,
    load_search,
    load_texts,
)
from neuronbert.tasks.feature_extraction.task import read_inputs
from neuronbert.tasks.samples import gate_path, shipped_texts


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def squad(path: Path) -> Path:
    paragraphs = [
        {"context": context, "qas": [
            {"id": f"{number}{question}", "question": question, "answers": [{"text": context[:1], "answer_start": 0}]}
            for question in questions
        ]}
        for number, (context, questions) in enumerate([("a paragraph", ["one?", "two?"]), ("another", ["three?"])])
    ]  # fmt: skip
    path.write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))
    return path


PAIRS = [ScoredPair("a", "b", 4.5), ScoredPair("c", "d", 0.0)]


LINES = """
{"sentence1": "a", "sentence2": "b", "similarity_score": 4.5}
{"text": "c", "text_pair": "d", "label": 0}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "text,text_pair,score\na,b,4.5\nc,d,0\n"),
        ("a.tsv", "score\tsentence1\tsentence2\n4.5\ta\tb\n0\tc\td\n"),
        ("a.jsonl", LINES),
    ],
)
def test_pairs_of_every_form(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert load_pairs(path) == PAIRS
    assert load_pairs(path, 1) == PAIRS[:1]
    assert load_texts(path) == read_inputs(path) == ["a", "b", "c", "d"] and not is_search(path)


@pytest.mark.parametrize("header", ["anchor,positive,score", "query,passage,similarity_score", "query,document,label"])
def test_names_of_a_search_with_scores_are_those_of_scored_pairs(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\na,b,4.5\nc,d,0\n")
    assert not is_search(path) and load_pairs(path) == PAIRS
    path.write_text(f"{header}\na,b,\nc,d,\n")
    assert is_search(path)


def test_a_quotation_mark_of_a_tab_separated_file_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('score\ttext\ttext_pair\n3\t"It would be\tIt is\n')
    assert load_pairs(path) == [ScoredPair('"It would be', "It is", 3.0)]


def test_texts_without_a_pair_or_a_score(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b", "text_pair": "a"}, {"text": "c", "label": "x"})
    assert load_pairs(path) == [ScoredPair("a"), ScoredPair("b", "a"), ScoredPair("c")]
    assert load_texts(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": 5, "text_pair": "b"}, "line 2: text is 5, no text"),
        ({"text": "", "text_pair": "b"}, "line 2: text is missing or empty"),
        ({"text": "a", "text_pair": ["b"]}, "line 2: text_pair is .*, no text"),
        ({"text": "a", "text_pair": "b", "score": "good"}, "line 2: the score 'good' is no number"),
        ({"text": "a", "text_pair": "b", "score": True}, "line 2: the score True is no number"),
        ({"text": "a", "text_pair": "b", "score": "inf"}, "line 2: the score 'inf' is no number"),
    ],
)
def test_a_faulty_pair_is_named(tmp_path: Path, record: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_pairs(lines(tmp_path / "a.jsonl", {"text": "a", "text_pair": "b"}, record))


def test_a_file_without_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,score\na,1\n")
    with pytest.raises(InputError, match="has no column 'text'; it has 'title', 'score'"):
        load_pairs(path)


# ---- searches


def test_a_search_in_lines(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"query": "q", "positive": ["a", "b"]}, {"query": "r", "positive": "b"})
    assert is_search(path)
    assert load_search(path) == Search(["q", "r"], ["a", "b"], [{0, 1}, {1}])
    assert load_search(path, 1) == Search(["q"], ["a", "b"], [{0, 1}])


def test_a_search_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,positive\nq,a\nr,a\n")
    assert is_search(path) and load_search(path) == Search(["q", "r"], ["a"], [{0}, {0}])


def test_records_of_an_equal_query_are_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,positive\nq1,p1\nq2,p3\nq1,p2\n")
    assert load_search(path) == Search(["q1", "q2"], ["p1", "p3", "p2"], [{0, 2}, {1}])
    assert load_search(path, 1) == Search(["q1"], ["p1", "p3", "p2"], [{0, 2}])


def test_equal_questions_of_two_paragraphs_are_one(tmp_path: Path) -> None:
    path = squad(tmp_path / "a.json")
    path.write_text(path.read_text().replace("three?", "one?"))
    assert load_search(path) == Search(["one?", "two?"], ["a paragraph", "another"], [{0, 1}, {0}])


def test_questions_of_a_squad_file_find_their_paragraphs(tmp_path: Path) -> None:
    path = squad(tmp_path / "a.json")
    assert is_search(path)
    assert load_search(path) == Search(["one?", "two?", "three?"], ["a paragraph", "another"], [{0}, {0}, {1}])
    assert load_texts(path) == ["one?", "two?", "three?", "a paragraph", "another"]


def test_the_texts_of_a_search_are_its_queries_and_what_they_find(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,passage\nq,a\nr,b\nq,c\n")
    assert read_inputs(path) == ["q", "r", "a", "b", "c"]
    path = lines(tmp_path / "a.jsonl", {"query": "q", "positive": ["a", "b"]}, {"query": "b", "positive": "c"})
    assert read_inputs(path) == ["q", "b", "a", "c"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"query": "q"}, "positive is missing or empty"),
        ({"query": "q", "positive": []}, "positive is missing or empty"),
        ({"query": "q", "positive": ["a", 5]}, "positive is .*, no text"),
        ({"query": 5, "positive": "a"}, "query is 5, no text"),
    ],
)
def test_a_faulty_query_is_named(tmp_path: Path, record: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"line 2: {said}"):
        load_search(lines(tmp_path / "a.jsonl", {"query": "q", "positive": "a"}, record))


def test_the_shipped_texts_are_questions_and_paragraphs() -> None:
    found: List[str] = read_inputs(None)
    shipped = shipped_texts(gate_path())
    assert len(found) == len(set(found)) and set(found) == {text for pair in shipped for text in pair}
