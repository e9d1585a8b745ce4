"""What a checkpoint's config.json says of its logits, as transformers' pipeline and CrossEncoder read it."""

import inspect
from types import SimpleNamespace
from typing import Any, Dict, Optional

import pytest
from tiny_classifiers import labels_of

from neuronbert.errors import CheckpointError
from neuronbert.tasks.text_classification.problem import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    Problem,
    problem_of,
)


def named(count: int, problem_type: Optional[str], **more: Any) -> Dict[str, Any]:
    return {**labels_of([f"label {number}" for number in range(count)]), "problem_type": problem_type, **more}


@pytest.mark.parametrize(
    ("count", "problem_type", "kind", "function"),
    [
        (3, None, SINGLE_LABEL, "softmax"),
        (3, SINGLE_LABEL, SINGLE_LABEL, "softmax"),
        (3, MULTI_LABEL, MULTI_LABEL, "sigmoid"),
        (3, REGRESSION, REGRESSION, "none"),
        (1, None, REGRESSION, "sigmoid"),
        (1, SINGLE_LABEL, REGRESSION, "sigmoid"),
        (1, MULTI_LABEL, MULTI_LABEL, "sigmoid"),
        (1, REGRESSION, REGRESSION, "none"),
        (2, "nothing known", SINGLE_LABEL, "softmax"),
    ],
)
def test_the_problem_is_named_or_follows_from_the_labels(
    count: int, problem_type: Optional[str], kind: str, function: str
) -> None:
    labels = tuple(f"label {number}" for number in range(count))
    assert problem_of(named(count, problem_type)) == Problem(kind, labels, function, function)


def test_a_config_that_says_nothing_is_of_two_labels() -> None:
    assert problem_of({}) == Problem(SINGLE_LABEL, ("LABEL_0", "LABEL_1"), "softmax", "softmax")
    assert problem_of({"num_labels": 1}).kind == REGRESSION


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("problem_type", [None, SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_the_function_is_the_one_that_transformers_applies(count: int, problem_type: Optional[str]) -> None:
    torch = pytest.importorskip("torch")
    from neuronbert.checkpoint.reference_model import transformers

    if problem_type == REGRESSION and "regression" not in inspect.getsource(
        transformers.TextClassificationPipeline.postprocess
    ):
        pytest.skip("this release of transformers takes a regression for a classification")
    # Not a real one: some releases refuse a single label of that problem, which configs of others have.
    config = named(count, problem_type, num_labels=count)
    pipeline = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(**config)))
    logits = torch.tensor([[0.5, -2.0, 3.0][:count]])
    scores = transformers.TextClassificationPipeline.postprocess(pipeline, {"logits": logits}, top_k=None)
    expected = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}
    function = problem_of(config).function
    assert [entry["score"] for entry in scores] == pytest.approx(expected[function][0].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("more", "function"),
    [
        ({}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none"),
        # Its new place says nothing of it, or goes before the old one.
        (
            {
                "sentence_transformers": {"version": "4.1.0"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            "none",
        ),
        (
            {
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            "sigmoid",
        ),
        ({"sentence_transformers": {"activation_fn": None}}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": 5}}, "sigmoid"),
        ({"sentence_transformers": "4.1.0"}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "sigmoid"),
    ],
)
def test_a_ranking_has_the_activation_that_a_cross_encoder_names(more: Dict[str, Any], function: str) -> None:
    problem = problem_of(named(1, None, **more))
    assert (problem.ranking_function, problem.function) == (function, "sigmoid")


def test_an_activation_changes_no_ranking_of_a_named_regression_but_by_its_name() -> None:
    assert problem_of(named(1, REGRESSION)).ranking_function == "none"
    activation = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    assert problem_of(named(1, REGRESSION, sentence_transformers=activation)).ranking_function == "sigmoid"


def test_labels_that_are_numbered_wrongly_are_refused() -> None:
    with pytest.raises(CheckpointError, match="the labels of id2label are numbered 1, 2, not 0, 1, ..."):
        problem_of({"id2label": {"1": "a", "2": "b"}})
