"""Every form of a text, a pair and a ranking, what is none of them, and the rows that they become."""

import re
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_classifiers import LABELS, POSITIONS, labels_of, tokenizer_of

from neuronbert.checkpoint.tokenizer import RowLimit, Tokenizer
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.rows import TextPair, encode_rows
from neuronbert.tasks.text_classification.inputs import Ranking, as_input, encode_examples
from neuronbert.tasks.text_classification.options import RowOptions
from neuronbert.tasks.text_classification.task import call_arguments, call_input, full_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Tokenizer:
    return tokenizer_of(folder, **labels_of(LABELS))


@pytest.fixture()
def cross_encoder(folder: Path) -> Tokenizer:
    return tokenizer_of(folder, **labels_of(["relevant"]))


# ---- forms


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", ""),
        ("a text", "a text"),
        ({"text": "a"}, "a"),
        ({"text": "a", "text_pair": None}, "a"),
        ({"text": "a", "id": 5, "label": "calm"}, "a"),
        ({"text": "a", "text_pair": ""}, TextPair("a", "")),
        ({"text": "a", "text_pair": "b"}, TextPair("a", "b")),
        (("a", "b"), TextPair("a", "b")),
        (["a", "b"], TextPair("a", "b")),
        (TextPair("a", "b"), TextPair("a", "b")),
        (("q", ["a", "b"]), Ranking("q", ("a", "b"))),
        (["q", ("a",)], Ranking("q", ("a",))),
        (("q", []), Ranking("q", ())),
        ({"query": "q", "texts": ["a", "b"]}, Ranking("q", ("a", "b"))),
        ({"query": "q", "texts": ("a",)}, Ranking("q", ("a",))),
        (Ranking("q", ("a",)), Ranking("q", ("a",))),
    ],
)
def test_forms_of_an_input(asked: Any, expected: Any) -> None:
    assert as_input(asked) == expected and type(as_input(asked)) is type(expected)


@pytest.mark.parametrize(
    "asked",
    [None, 5, b"text", [], ["a"], ["a", "b", "c"], {}, {"text_pair": "b"}, {"query": "q"}, {"query": "q", "texts": "a"},
     {"texts": ["a"]}, {"text": None}, {"text": 5}, {"text": ["a", "b"]}, {"text": {"text": "a"}}, {1, 2}, object()],
)  # fmt: skip
@pytest.mark.parametrize("labels", [LABELS, ["relevant"]], ids=["classifier", "cross-encoder"])
def test_what_is_no_input_is_refused_whatever_the_model(folder: Path, labels: Any, asked: Any) -> None:
    with pytest.raises(InputError) as caught:
        encode_examples(tokenizer_of(folder, **labels_of(labels)), [asked], RowOptions())
    assert "rank" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("a", 5), "the text_pair is of type int, not str"),
        ((b"a", "b"), "the text is of type bytes, not str"),
        ({"text": 5}, "the text is of type int, not str"),
        ({"text": "a", "text_pair": ["b"]}, "the text_pair is of type list, not str"),
    ],
)
def test_texts_of_another_type_are_named(classifier: Tokenizer, asked: Any, message: str) -> None:
    if asked == {"text": "a", "text_pair": ["b"]}:
        with pytest.raises(InputError, match=message):
            encode_examples(classifier, [asked], RowOptions())
    else:
        with pytest.raises(InputError, match=f"^{message}"):
            encode_examples(classifier, ["fine", asked], RowOptions())


@pytest.mark.parametrize(
    ("arguments", "keywords", "expected"),
    [
        (("a",), {}, "a"),
        (("a", "b"), {}, TextPair("a", "b")),
        (("a",), {"text_pair": "b"}, TextPair("a", "b")),
        ((), {"text": "a", "text_pair": "b"}, TextPair("a", "b")),
        ((["a", "b"],), {}, TextPair("a", "b")),
        (({"text": "a"},), {}, "a"),
        (({"query": "q", "texts": ["a"]},), {}, Ranking("q", ("a",))),
        (("q", ["a", "b"]), {}, Ranking("q", ("a", "b"))),
        ((), {"query": "q", "texts": ["a", "b"]}, Ranking("q", ("a", "b"))),
        ((), {"query": "q", "texts": iter(["a", "b"])}, Ranking("q", ("a", "b"))),
        ((), {"query": "q", "texts": []}, Ranking("q", ())),
    ],
)
def test_forms_of_a_call(arguments: Any, keywords: Any, expected: Any) -> None:
    assert call_input(*arguments, **keywords, top_k=2) == (expected, {"top_k": 2})


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {}),
        ((None,), {}),
        ((), {"text_pair": "b"}),
        ((), {"query": "q"}),
        ((), {"texts": ["a"]}),
        (("a",), {"query": "q", "texts": ["b"]}),
        (("a", "b"), {"texts": ["b"]}),
        ((), {"text_pair": "a", "query": "q", "texts": ["b"]}),
        ((), {"query": "q", "texts": "a text"}),
    ],
)
def test_a_mixture_of_forms_is_refused(arguments: Any, keywords: Any) -> None:
    with pytest.raises(
        InputError, match="^a call has a text, a text and its text_pair, or a query and a list of texts"
    ):
        call_input(*arguments, **keywords)


def test_a_call_of_more_texts_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        call_input("a", "b", "c")


@given(st.one_of(st.text(), st.builds(TextPair, st.text(), st.text()),
                 st.builds(Ranking, st.text(), st.lists(st.text()).map(tuple))))  # fmt: skip
def test_a_call_with_the_texts_of_an_input_asks_it(asked: Any) -> None:
    again, left = call_input(*call_arguments(asked))
    assert again == asked and type(again) is type(asked) and left == {}


# ---- rows


def test_texts_and_pairs_are_a_row_each(classifier: Tokenizer) -> None:
    inputs: List[Any] = ["the puppet", TextPair("the puppet", "who was"), "", "the " * 100]
    examples = encode_examples(classifier, inputs, RowOptions())
    for asked, example, cut in zip(inputs, examples, encode_rows(classifier, inputs)):
        assert example.asked == asked and example.truncated == [cut.truncated]
        np.testing.assert_array_equal(example.windows, [cut.row])
    assert [example.truncated for example in examples] == [[False], [False], [False], [True]]
    assert {example.problem.labels for example in examples} == {LABELS}


def test_a_ranking_is_a_row_for_each_of_its_texts(cross_encoder: Tokenizer) -> None:
    texts = ("the puppet", "", "who " * 100, "the puppet")
    before, example, after = encode_examples(cross_encoder, ["a", Ranking("was it?", texts), "b"], RowOptions())
    pairs = encode_rows(cross_encoder, [TextPair("was it?", text) for text in texts])
    assert len(example.windows) == 4 and example.truncated == [False, False, True, False]
    for row, cut in zip(example.windows, pairs):
        np.testing.assert_array_equal(row, cut.row)
    assert len(before.windows) == len(after.windows) == 1


def test_a_row_may_be_shorter(classifier: Tokenizer) -> None:
    (example,) = encode_examples(classifier, ["the puppet was"], RowOptions(max_length=4))
    assert len(example.windows[0].input_ids) == 4 and example.truncated == [True]
    with pytest.raises(UsageError, match="a max_length of 2 leaves no room"):
        encode_examples(classifier, ["a"], RowOptions(max_length=2))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8", float("nan")])
def test_a_length_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="^max_length must be a whole number, 1 or more, not "):
        RowOptions(value)


def test_a_model_of_several_labels_ranks_nothing(classifier: Tokenizer) -> None:
    with pytest.raises(InputError, match=re.escape("this model tells 3 labels apart (calm, glad, cross)")) as caught:
        encode_examples(classifier, [Ranking("q", ("a",))], RowOptions())
    assert "cross-encoder, whose num_labels is 1" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        (Ranking("q", ()), "there are no texts to rank"),
        (Ranking(5, ("a",)), "the query is of type int, not str"),  # type: ignore[arg-type]
        (Ranking("q", ("a", None)), "the text is of type NoneType, not str"),  # type: ignore[arg-type]
    ],
)
def test_a_ranking_that_cannot_be_asked(cross_encoder: Tokenizer, ranking: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        encode_examples(cross_encoder, ["fine", ranking], RowOptions())


def test_a_ranking_of_more_texts_than_fit_is_refused_before_they_are_encoded(
    cross_encoder: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_encoder, "encode", lambda texts: pytest.fail("a text was encoded"))
    with pytest.raises(InputError) as caught:
        encode_examples(cross_encoder, [Ranking("q", ("a",) * 10_001)], RowOptions())
    assert caught.value.message == "this request ranks 10,001 texts, and neuronbert takes 10,000"
    assert caught.value.hint == "fewer texts"
    cross_encoder.row_limit = RowLimit(1, "the runner", "Runner(..., max_queue=N)")
    with pytest.raises(InputError) as caught:
        encode_examples(cross_encoder, [Ranking("q", ("a", "b"))], RowOptions())
    assert caught.value.message == "this request ranks 2 texts, and the runner takes 1"
    assert caught.value.hint == "fewer texts, or Runner(..., max_queue=N)"


# ---- rows of an exact length, for timing


def test_full_rows_are_of_the_length_asked_for(cross_encoder: Tokenizer) -> None:
    inputs: List[Any] = ["who was the puppet", TextPair("a nice", "jim henson"), Ranking("who", ("was", "the"))] * 20
    for tokens in (4, 16, POSITIONS):
        rows = full_rows(cross_encoder, inputs, tokens, 3)
        assert [len(row.input_ids) for row in rows] == [tokens] * len(rows) and 1 <= len(rows) <= 3
    assert len(full_rows(cross_encoder, inputs, 8, 10)) == 10
    first, second = full_rows(cross_encoder, inputs, 8, 2)
    assert first.input_ids.tolist() != second.input_ids.tolist()
    with pytest.raises(InputError, match="the texts hold no row of 64 tokens"):
        full_rows(cross_encoder, ["who was", ""], POSITIONS, 1)
