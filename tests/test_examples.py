"""The files in examples/, which the README's commands name, hold what the README says."""

import json
from pathlib import Path

from neuronbert.tasks.question_answering.lines import read_questions
from neuronbert.tasks.question_answering.squad import load_squad_data

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_both_files_ask_the_same_questions():
    data = load_squad_data(EXAMPLES / "squad.json")
    with open(EXAMPLES / "questions.jsonl", "rb") as file:
        lines = list(read_questions(file))
    assert data.version == "1.1" and len(lines) == 30
    assert [(line.id, *line.input) for line in lines] == [(one.id, one.question, one.context) for one in data.questions]


def test_right_answers_are_where_they_say():
    for item in load_squad_data(EXAMPLES / "squad.json").questions:
        for answer, start in zip(item.answers, item.answer_starts):
            assert item.context[start : start + len(answer)] == answer, item.id


def test_a_line_holds_nothing_but_the_three_keys():
    for line in (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        assert list(json.loads(line)) == ["id", "question", "context"]
