"""The stand-in for transformers' feature-extraction pipeline: forms, keywords and errors (test_parity.py: numbers)."""

from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
from tiny_encoders import WIDTH

import neuronbert
from neuronbert.artifact.manifest import Artifact
from neuronbert.checkpoint.tokenizer import RowLimit
from neuronbert.errors import InputError, UsageError

TEXTS = ["the nice puppet", "who was jim henson?"]


@pytest.fixture(scope="module")
def pooled(echo: Artifact) -> Any:
    return neuronbert.pipeline("feature-extraction", model=echo, threads=1)


@pytest.fixture(scope="module")
def tokens(artifacts: Dict[str, Artifact]) -> Any:
    return neuronbert.pipeline("feature-extraction", model=artifacts["tokens"], variant="torchscript", threads=1)


def test_of_a_pooling_artifact_each_text_has_a_list(pooled: Any) -> None:
    one, several = pooled(TEXTS[0]), pooled(TEXTS)
    assert np.shape(one) == (WIDTH,) and np.shape(several) == (2, WIDTH) and several[0] == one
    assert isinstance(one, list) and isinstance(one[0], float)


def test_of_another_each_token_has_one(tokens: Any) -> None:
    count = 2 + len(tokens.tokenizer.encode(TEXTS[:1])[0].ids)
    assert np.shape(tokens(TEXTS[0])) == (1, count, WIDTH)
    assert np.shape(tokens(TEXTS)[0]) == (1, count, WIDTH)


def test_a_generator_gives_one(pooled: Any) -> None:
    def texts() -> Iterator[str]:
        yield from TEXTS

    found = pooled(texts(), batch_size=2)
    assert not isinstance(found, list) and list(found) == pooled(TEXTS)


def test_tensors(pooled: Any, tokens: Any) -> None:
    torch = pytest.importorskip("torch")
    for pipeline in (pooled, tokens):
        found = pipeline(TEXTS[0], return_tensors=True)
        assert isinstance(found, torch.Tensor) and found.tolist() == pipeline(TEXTS[0])


def test_the_keywords_of_both_kinds_of_options(pooled: Any, echo: Artifact) -> None:
    assert np.linalg.norm(pooled(TEXTS[0], normalize=True)) == pytest.approx(1, abs=1e-5)
    assert pooled(TEXTS[0], truncate_dim=3) == pooled(TEXTS[0])[:3]
    assert pooled(TEXTS[0], prompt_name="query") == pooled("the puppet: " + TEXTS[0])
    made = neuronbert.pipeline("feature-extraction", model=echo, threads=1, truncate_dim=3)
    assert len(made(TEXTS[0])) == 3 and len(made(TEXTS[0], truncate_dim=5)) == 5


@pytest.mark.filterwarnings("ignore:.*did not fit a row")
def test_the_length_of_a_row(pooled: Any) -> None:
    short = pooled(TEXTS[0], max_length=4)
    assert short == pooled(TEXTS[0], tokenize_kwargs={"max_length": 4, "truncation": True}) != pooled(TEXTS[0])


def test_a_cut_text_is_warned_of(pooled: Any) -> None:
    with pytest.warns(UserWarning, match="1 text of 1 did not fit a row") as caught:
        pooled("the " * 99)
    assert caught[0].filename == __file__


def test_keywords_that_mean_nothing_here(pooled: Any) -> None:
    with pytest.warns(UserWarning, match="top_k=3 is ignored"):
        pooled(TEXTS[0], top_k=3)
    with pytest.warns(UserWarning, match="tokenize_kwargs: stride is ignored"):
        pooled(TEXTS[0], tokenize_kwargs={"stride": 3})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "keywords", [{"truncation": True}, {"padding": True}, {"device": -1}, {"tokenize_kwargs": None}]
)
def test_keywords_that_change_no_result_anywhere(pooled: Any, keywords: Dict[str, Any]) -> None:
    assert pooled(TEXTS[0], **keywords) == pooled(TEXTS[0])


@pytest.mark.parametrize("inputs", [None, 5, {"text": "a"}])
def test_what_is_no_text(pooled: Any, inputs: Any) -> None:
    with pytest.raises(InputError, match="is no text"):
        pooled(inputs)


@pytest.mark.parametrize("inputs", [["a", None], ["a", ["b"]]])
def test_which_of_several_is_no_text(pooled: Any, inputs: List[Any]) -> None:
    with pytest.raises(InputError, match=r"inputs\[1\]: .* is no text"):
        pooled(inputs)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
@pytest.mark.parametrize(("wrong", "reason"), [(5, "5 is no text"), ("the " * 99, "a text of 99 tokens becomes")])
def test_an_error_names_the_place_in_a_generator(
    pooled: Any, monkeypatch: pytest.MonkeyPatch, wrong: Any, reason: str, batch_size: int
) -> None:
    monkeypatch.setattr(pooled.tokenizer, "row_limit", RowLimit(1, "this test"))
    texts = [*TEXTS, *TEXTS, wrong, *TEXTS]
    with pytest.raises(InputError, match=rf"^inputs\[4\]: {reason}"):
        list(pooled((each for each in texts), long_texts="pooled", batch_size=batch_size))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"return_tensors": "pt"}, "return_tensors"),
        ({"max_length": 0}, "max_length"),
    ],
)
def test_values_that_are_none(pooled: Any, keywords: Dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pooled(TEXTS[0], **keywords)


def test_tokenize_keywords_that_are_none(pooled: Any) -> None:
    with pytest.raises(InputError, match="tokenize_kwargs is 5"):
        pooled(TEXTS[0], tokenize_kwargs=5)
