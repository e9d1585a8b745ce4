"""The files in examples/, which the README's commands name, hold what the README says."""

import json
import re
from pathlib import Path

from neuronbert.hardware.prices import load_prices
from neuronbert.tasks import load_task
from neuronbert.tasks.feature_extraction.data import load_pairs
from neuronbert.tasks.lines import read_lines
from neuronbert.tasks.question_answering.lines import LINES, read_questions
from neuronbert.tasks.question_answering.squad import load_squad_data
from neuronbert.tasks.text_classification.data import load_raw
from neuronbert.tasks.token_classification.data import load_marked, with_labels
from neuronbert.tasks.token_classification.entity_f1 import Span

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


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


def test_the_page_about_files_is_true(tmp_path):
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    blocks = re.findall("^```json\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    asked, texts, tagged, embedded, answered, error, squad, marked, prices = blocks
    (line,) = read_questions([asked])
    classification, tokens = load_task("text-classification"), load_task("token-classification")
    kinds = [type(read.input).__name__ for read in read_lines(texts.encode().splitlines(True), classification.LINES)]
    assert kinds == ["str", "TextPair", "Ranking"]
    read = [each.input for each in read_lines(tagged.encode().splitlines(True), tokens.LINES)]
    assert read == ["Jim Henson was born in Greenville.", "Jim Henson was born in Greenville ."]
    (encoded,) = read_lines([embedded], load_task("feature-extraction").LINES)
    assert (encoded.input, encoded.keywords) == ("I left my card on the bus", {"prompt": "query: "})
    (tmp_path / "marked.jsonl").write_text(marked, encoding="utf-8")
    by_words, by_characters = with_labels(load_marked(tmp_path / "marked.jsonl"), ["O", "I-PER"], "marked.jsonl")
    assert by_words.entities == by_characters.entities == {Span("PER", 0, 10)}
    answer = json.loads(answered)
    assert (answer["line"], answer["id"]) == (2, line.id) and json.loads(error)["error"]
    assert line.input.context[answer["start"] : answer["end"]] == answer["answer"]
    (tmp_path / "squad.json").write_text(squad, encoding="utf-8")
    (item,) = load_squad_data(tmp_path / "squad.json").questions
    assert (item.id, item.question, item.context) == (line.id, *line.input)
    assert item.context[item.answer_starts[0] :].startswith(item.answers[0])
    (tmp_path / "prices.json").write_text(prices, encoding="utf-8")
    assert load_prices(tmp_path / "prices.json").price("inf1.xlarge").usd_per_hour == 0.15
    table = page[page.index("| key |") : page.index("Other keys are ignored")]
    assert set(re.findall("`([a-z_]+)`", table)) - {"true", "false"} == {"id", "question", "context", *LINES.keywords}
    table = page[page.index("| `text`, or `query`") : page.index("For an artifact of token classification")]
    known = {"text", "text_pair", "query", "texts", *classification.LINES.keywords}
    assert set(re.findall("`([a-z_]+)`", table)) - {"true", "false"} == known


def test_the_labelled_texts_are_what_the_page_says(tmp_path):
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    (tmp_path / "shown.csv").write_text(re.findall("^```text\n(text,label.*?)^```", page, re.M | re.S)[0])
    assert [text.label for text in load_raw(tmp_path / "shown.csv")] == ["lost_card", "renew_loan"]
    (tmp_path / "scored.csv").write_text(re.findall("^```text\n(text,text_pair.*?)^```", page, re.M | re.S)[0])
    assert [pair.score for pair in load_pairs(tmp_path / "scored.csv")] == [5.0, 0.5]
    train, test = (load_raw(EXAMPLES / f"intents-{name}.csv") for name in ("train", "test"))
    assert (len(train), len(test)) == (54, 18)
    assert {text.label for text in train} == {text.label for text in test} and len({text.label for text in train}) == 6
    assert not {text.asked for text in train} & {text.asked for text in test}
