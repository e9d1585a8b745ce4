"""Labels and rankings of logits, against what transformers' pipeline makes of the same ones."""

import json
import math
from types import SimpleNamespace
from typing import Any, List, Optional, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.tasks.rows import TextRow
from neuronbert.tasks.text_classification.inputs import Asked, Example, Ranking
from neuronbert.tasks.text_classification.options import FUNCTIONS, LabelOptions
from neuronbert.tasks.text_classification.problem import problem_of
from neuronbert.tasks.text_classification.results import (
    COLUMNS,
    apply_function,
    decode,
    document,
    result_text,
    single,
)

# In single precision, transformers' sigmoid overflows beyond.
LOGIT = st.floats(-80, 80, width=32)
ROW = TextRow(np.array([2, 3]), np.array([0, 0]))
NAMES = tuple(f"label {number}" for number in range(6))


def example_of(asked: Asked, truncated: Sequence[bool], labels: Sequence[str] = NAMES, **config: Any) -> Example:
    problem = problem_of({"id2label": dict(enumerate(labels)), **config})
    return Example(asked, [ROW] * len(truncated), list(truncated), problem)


def outputs_of(*rows: Sequence[float]) -> List[Any]:
    return [{"logits": np.array(row, dtype=np.float32)} for row in rows]


def labels_for(logits: Sequence[float], truncated: bool = False, **options: Any) -> List[Any]:
    return decode(example_of("text", [truncated], NAMES[: len(logits)]), outputs_of(logits), LabelOptions(**options))


def ranked(logits: Sequence[float], truncated: Optional[Sequence[bool]] = None, **options: Any) -> List[Any]:
    texts = tuple(f"text {number}" for number in range(len(logits)))
    asked = example_of(Ranking("query", texts), truncated or [False] * len(logits), ["relevant"])
    return decode(asked, outputs_of(*([logit] for logit in logits)), LabelOptions(**options))


# ---- labels


@given(logits=st.lists(LOGIT, min_size=1, max_size=6), function=st.sampled_from([None, "softmax", "sigmoid", "none"]))
@example(logits=[1.0, 1.0, 1.0], function=None)  # of equal scores the first label comes first
@example(logits=[-80.0, 80.0], function="softmax")
def test_labels_are_those_of_transformers(logits: List[float], function: Optional[str]) -> None:
    torch = pytest.importorskip("torch")
    from neuronbert.checkpoint.reference_model import transformers

    names = dict(enumerate(NAMES[: len(logits)]))
    config = SimpleNamespace(problem_type=None, num_labels=len(logits), id2label=names)
    theirs = transformers.TextClassificationPipeline.postprocess(
        SimpleNamespace(model=SimpleNamespace(config=config)),
        {"logits": torch.tensor([logits])},
        function_to_apply=function and _function(function),
        top_k=None,
        _legacy=False,
    )
    ours = labels_for(logits, top_k=len(logits), function_to_apply=function or "default")
    scores = {entry["label"]: entry["score"] for entry in theirs}
    assert {entry["label"]: entry["score"] for entry in ours} == pytest.approx(scores, abs=1e-5)
    # In single precision scores are equal that are not in double precision: among those, any order is theirs.
    assert [scores[entry["label"]] for entry in ours] == pytest.approx([entry["score"] for entry in theirs], abs=1e-6)
    (best,) = labels_for(logits, function_to_apply=function or "default")
    assert best == ours[0] and scores[best["label"]] == pytest.approx(theirs[0]["score"], abs=1e-6)


def _function(name: str) -> Any:
    from transformers.pipelines.text_classification import ClassificationFunction

    return ClassificationFunction(name)


def test_results_are_plain_values() -> None:
    results = labels_for([0.0, 1.0], top_k=2)
    assert results == json.loads(json.dumps(results))
    assert [type(value) for value in results[0].values()] == [str, float]
    assert json.loads(json.dumps(ranked([0.5, 1.5], return_texts=True)))[0]["index"] == 1


@given(logits=st.lists(LOGIT, min_size=1, max_size=6), top_k=st.integers(1, 8))
def test_top_k_is_the_beginning_of_all(logits: List[float], top_k: int) -> None:
    everything = labels_for(logits, top_k=len(logits))
    assert labels_for(logits, top_k=top_k) == everything[:top_k]
    assert labels_for(logits) == everything[:1]


def test_equal_scores_are_in_the_order_of_the_labels() -> None:
    assert [entry["label"] for entry in labels_for([0.0, 1.0, 0.0, 1.0], top_k=4)] == [
        "label 1", "label 3", "label 0", "label 2",
    ]  # fmt: skip


def test_labels_of_a_cut_text_say_so() -> None:
    assert all(entry["truncated"] is True for entry in labels_for([0.0, 1.0], truncated=True, top_k=2))
    assert all("truncated" not in entry for entry in labels_for([0.0, 1.0], top_k=2))


@pytest.mark.parametrize(
    ("config", "scores"),
    [
        ({}, [0.8807970779778823, 0.11920292202211755]),
        ({"problem_type": "multi_label_classification"}, [0.8807970779778823, 0.5]),
        ({"problem_type": "regression"}, [2.0, 0.0]),
    ],
)
def test_the_default_function_follows_the_problem(config: Any, scores: List[float]) -> None:
    asked = example_of("text", [False], NAMES[:2], **config)
    result = decode(asked, outputs_of([2.0, 0.0]), LabelOptions(top_k=2))
    assert [entry["score"] for entry in result] == pytest.approx(scores, abs=1e-12)


# ---- functions


@given(logits=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
@example(logits=[3e38, -3e38])
def test_functions_give_shares_of_any_logits(logits: List[float]) -> None:
    values = np.array([logits], dtype=np.float32)
    softmax, sigmoid = apply_function(values, "softmax"), apply_function(values, "sigmoid")
    for scores in (softmax, sigmoid):
        assert scores.dtype == np.float64 and scores.shape == values.shape
        assert ((scores >= 0) & (scores <= 1)).all()
    assert softmax.sum() == pytest.approx(1)
    assert sigmoid[0].tolist() == pytest.approx([_sigmoid(each) for each in values[0].tolist()], abs=1e-12)
    np.testing.assert_array_equal(apply_function(values, "none"), values)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def test_rows_are_apart_from_one_another() -> None:
    values = np.array([[1.0, 2.0], [0.0, 700.0]], dtype=np.float32)
    for function in FUNCTIONS[1:]:
        for row in (0, 1):
            np.testing.assert_array_equal(
                apply_function(values, function)[row], apply_function(values[row : row + 1], function)[0]
            )


# ---- rankings


@given(logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9), options=st.sampled_from(FUNCTIONS))
def test_a_ranking_is_sorted_by_the_logits_whatever_becomes_of_them(logits: List[float], options: str) -> None:
    order = sorted(range(len(logits)), key=lambda number: -logits[number])
    result = ranked(logits, function_to_apply=options)
    assert [entry["index"] for entry in result] == order
    scores = [entry["score"] for entry in result]
    assert scores == sorted(scores, reverse=True)


def test_what_an_entry_of_a_ranking_has() -> None:
    assert [set(entry) for entry in ranked([1.0, 2.0])] == [{"index", "score"}] * 2
    with_texts = ranked([1.0, 3.0, 2.0], [False, False, True], return_texts=True, top_k=2, function_to_apply="none")
    assert with_texts == [
        {"index": 1, "score": 3.0, "text": "text 1"},
        {"index": 2, "score": 2.0, "text": "text 2", "truncated": True},
    ]
    assert [entry["score"] for entry in ranked([0.0])] == [0.5]


def test_a_ranking_has_all_texts_unless_fewer_are_asked_for() -> None:
    assert len(ranked([0.0] * 40)) == len(ranked([0.0] * 40, top_k=50)) == 40
    assert [entry["index"] for entry in ranked([0.0] * 40, top_k=3)] == [0, 1, 2]


# ---- as calls, JSON and text show them


def test_a_call_gives_a_label_alone_and_a_ranking_as_a_list() -> None:
    one, two = labels_for([0.0, 1.0]), labels_for([0.0, 1.0], top_k=2)
    assert single(one) == one[0] and single(two) == two
    assert single(ranked([0.0])) == ranked([0.0])


def test_a_document_is_one_labels_keys_or_a_list() -> None:
    one, two = labels_for([0.0, 1.0]), labels_for([0.0, 1.0], top_k=2)
    assert document(one, LabelOptions()) == one[0] == document(one, LabelOptions(top_k=1))
    assert document(two, LabelOptions(top_k=2)) == {"labels": two}
    # By what was asked for, not by how many there are.
    assert document(labels_for([0.0], top_k=2), LabelOptions(top_k=2)) == {"labels": labels_for([0.0])}
    assert document(ranked([0.0]), LabelOptions(top_k=1)) == {"ranking": ranked([0.0])}


def test_a_table_has_a_column_for_every_key_of_a_document() -> None:
    cut, options = labels_for([0.0, 1.0], truncated=True), LabelOptions()
    documents = [
        document(cut, options),
        document(cut, LabelOptions(top_k=2)),
        document(ranked([0.0, 1.0], [True, False], return_texts=True), options),
    ]
    assert [key for each in documents for key in each] == [*COLUMNS]


def test_text_for_a_person() -> None:
    assert result_text(labels_for([3.0, 0.0, 1.0], top_k=2)) == "label 0  (score 0.8438)\nlabel 2  (score 0.1142)"
    cut = result_text(labels_for([3.0, 0.0], truncated=True))
    assert cut == "label 0  (score 0.9526)  (truncated: the text is longer than the model reads)"
    assert result_text(ranked([0.0, 1.0], return_texts=True)) == (
        "    1  (score 0.7311)  text 1\n    0  (score 0.5000)  text 0"
    )


# ---- options


@pytest.mark.parametrize("function", [*FUNCTIONS, "SOFTMAX", "Sigmoid"])
def test_functions_are_named_in_any_case(function: str) -> None:
    assert LabelOptions(function_to_apply=function).function_to_apply == function.lower()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"function_to_apply": "tanh"}, "there is no function 'tanh'"),
        ({"function_to_apply": ""}, "there is no function ''"),
        ({"function_to_apply": None}, "there is no function None"),
        ({"function_to_apply": 5}, "there is no function 5"),
        ({"top_k": 0}, "top_k must be a whole number, 1 or more, not 0"),
        ({"top_k": -1}, "top_k must be a whole number, 1 or more, not -1"),
        ({"top_k": 1.0}, "top_k must be a whole number, 1 or more, not 1.0"),
        ({"top_k": True}, "top_k must be a whole number, 1 or more, not True"),
        ({"top_k": "2"}, "top_k must be a whole number, 1 or more, not '2'"),
        ({"top_k": 2**40}, "top_k must be a whole number up to"),
        ({"return_texts": "yes"}, "return_texts must be True or False, not 'yes'"),
    ],
)
def test_wrong_options_are_named(keywords: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        LabelOptions(**keywords)


def test_numbers_of_numpy_are_numbers() -> None:
    options = LabelOptions(top_k=np.int64(2), return_texts=np.bool_(True))  # type: ignore[arg-type]
    assert options == LabelOptions(top_k=2, return_texts=True) and type(options.top_k) is int
