import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.question_answering.metrics import (
    answer_exact,
    answer_f1,
    evaluate_answers,
    mean_f1,
    normalize_answer,
    question_f1,
)
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad, load_squad_data

# A busy machine is no failure.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
DATA = Path(__file__).parents[2] / "data" / "squad"
# sum() of floats is compensated since 3.12: the official v2.0 script prints another last digit there.
OFFICIAL = json.loads((DATA / "official.json").read_text(encoding="utf-8"))[
    "since Python 3.12" if sys.version_info >= (3, 12) else "before Python 3.12"
]


def read(name):
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def question(id, *answers):
    return SquadQuestion(id, "?", "context " + id, answers, not answers)


def test_v1_equals_the_official_script_to_the_last_digit():
    figures = evaluate_answers(load_squad(DATA / "v1.json"), read("v1-predictions.json"))
    assert figures == OFFICIAL["v1"]


def test_v2_equals_the_official_script_to_the_last_digit():
    figures = evaluate_answers(load_squad(DATA / "v2.json"), read("v2-predictions.json"))
    assert figures == OFFICIAL["v2"]
    assert list(figures) == list(OFFICIAL["v2"])


@pytest.mark.parametrize(
    ("recorded", "options"),
    [("v2, null scores", {}), ("v2, null scores, threshold 0.6", {"null_threshold": 0.6})],
)
def test_v2_with_null_scores_equals_the_official_script_to_the_last_digit(recorded, options):
    figures = evaluate_answers(
        load_squad(DATA / "v2.json"), read("v2-predictions.json"), read("v2-null-scores.json"), **options
    )
    assert figures == OFFICIAL[recorded]


def test_the_recorded_data_hold_what_they_are_there_for():
    v1, v2 = load_squad_data(DATA / "v1.json"), load_squad_data(DATA / "v2.json")
    assert (v1.version, v2.version) == ("1.1", "2.0")
    assert len({item.id for item in v1.questions} - set(read("v1-predictions.json"))) == 2
    assert 50 < sum(item.is_impossible for item in v2.questions) < len(v2.questions) - 50
    assert len(set(read("v2-null-scores.json").values())) < len(v2.questions) / 2
    threshold = OFFICIAL["v2, null scores"]["best_f1_thresh"]
    assert 0 < threshold < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Big, BAD wolf!", "big bad wolf"),
        ("an apple a day", "apple day"),
        ("anthem", "anthem"),
        ("the-end", "theend"),  # punctuation goes first, so the article is no longer a word
        ("“quoted”", "“quoted”"),  # only ASCII punctuation goes
        ("ÅSA\u00a0Ö", "åsa ö"),
        ("A the an", ""),
    ],
)
def test_normalize_answer(text, expected):
    assert normalize_answer(text) == expected


def test_answer_f1_counts_shared_tokens():
    # 2 shared of 3 and of 4: precision 2/3, recall 1/2.
    assert answer_f1("red blue green", "blue red black white") == pytest.approx(4 / 7)
    assert answer_f1("x x y", "x z") == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


@pytest.mark.parametrize(("a", "b", "f1"), [("", "", 1), ("", "x", 0), ("The", "", 1), ("x", "y", 0)])
def test_an_empty_answer_agrees_only_with_an_empty_one(a, b, f1):
    assert answer_f1(a, b) == answer_f1(b, a) == f1


@UNTIMED
@given(st.text(), st.text())
def test_answer_f1_is_symmetric_and_between_0_and_1(a, b):
    assert 0 <= answer_f1(a, b) <= 1
    assert answer_f1(a, b) == answer_f1(b, a)
    assert answer_f1(a, a) == 1
    if answer_exact(a, b):
        assert answer_f1(a, b) == 1


def test_mean_f1_takes_the_best_gold_of_each_question():
    assert mean_f1(["red car", "x", ""], [["car", "red car"], ["y"], []]) == pytest.approx(2 / 3)


def test_mean_f1_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match="2 predictions for 1 questions"):
        mean_f1(["a", "b"], [["a"]])


def test_the_versions_differ_where_an_answer_normalises_to_nothing():
    item = question("q", "The")
    assert question_f1(item, "the", "1.1") == 0
    assert question_f1(item, "the", "2.0") == 1


def test_a_missing_prediction_is_wrong_in_v1_and_refused_in_v2():
    items = [question("a", "x"), question("b", "y")]
    assert evaluate_answers(items, {"a": "x"}) == {"exact_match": 50.0, "f1": 50.0}
    with pytest.raises(InputError, match=r"1 of 2 questions have no prediction, the first is 'b'"):
        evaluate_answers(items, {"a": "x"}, version="2.0")
    with pytest.raises(InputError, match=r"2 of 2 questions have no null score, the first is 'a'"):
        evaluate_answers(items, {"a": "x", "b": "y"}, {})


def test_the_version_is_2_when_a_question_has_no_answer():
    assert set(evaluate_answers([question("a", "x")], {"a": "x"})) == {"exact_match", "f1"}
    assert evaluate_answers([question("a")], {"a": ""})["NoAns_exact"] == 100.0
    with pytest.raises(InputError, match="'a' has no answer, which SQuAD v1.1 does not allow"):
        evaluate_answers([question("a")], {"a": ""}, version="1.1")


def test_bad_calls_are_refused():
    with pytest.raises(InputError, match="no questions"):
        evaluate_answers([], {})
    with pytest.raises(UsageError, match="version '3'"):
        evaluate_answers([question("a", "x")], {"a": "x"}, version="3")


def test_the_best_threshold_answers_exactly_the_questions_it_should():
    items = [question("a", "x"), question("b", "y"), question("c"), question("d", "z")]
    predictions = {"a": "x", "b": "y", "c": "no", "d": "wrong"}
    figures = evaluate_answers(items, predictions, {"a": 0.1, "b": 0.4, "c": 0.8, "d": 0.9})
    # Answering a and b and declining c is right three times in four.
    assert figures["best_exact"] == 75.0
    assert figures["best_exact_thresh"] == 0.4
