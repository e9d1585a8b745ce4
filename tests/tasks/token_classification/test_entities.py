"""neuronbert.tasks.token_classification.entities, where transformers has no answer; test_parity has the rest."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks.token_classification.entities import (
    best_labels,
    entities_of_text,
    is_slow_to_join,
    token_scores,
)
from neuronbert.tasks.token_classification.options import STRATEGIES, EntityOptions, StrideOptions
from neuronbert.tasks.token_classification.text import entities_text
from neuronbert.tasks.token_classification.windows import encode_texts
from token_classification.tiny_taggers import LABELS, logits_of

TOKENIZER = Tokenizer.from_bytes(
    (DEMO / "tokenizer.json").read_bytes(),
    (DEMO / "tokenizer_config.json").read_bytes(),
    {"id2label": {str(number): label for number, label in enumerate(LABELS)}},
)
OUT, B_PER, I_PER, B_LOC, I_LOC = range(5)
TEXT = "Jim Henson was from Greenville."
TOKENS = ["jim", "henson", "was", "from", "greenville", "."]
RIGHT = [B_PER, I_PER, OUT, OUT, B_LOC, OUT]


def encoded(text=TEXT, **options):
    return encode_texts(TOKENIZER, [text], StrideOptions(**options))[0]


def found(numbers=RIGHT, text=TEXT, strategy="simple", ignore_labels=("O",), **options):
    one = encoded(text, **options)
    return entities_of_text(one, logits_of(one, numbers), EntityOptions(strategy, ignore_labels))


def named(entities):
    return [(entity["entity_group"], entity["word"], entity["start"], entity["end"]) for entity in entities]


def test_the_text_is_one_of_whole_words():
    assert encoded().tokens == TOKENS


def test_tokens_by_themselves():
    entities = found(strategy="none")
    assert [(e["entity"], e["index"], e["word"], e["start"], e["end"]) for e in entities] == [
        ("B-PER", 1, "jim", 0, 3),
        ("I-PER", 2, "henson", 4, 10),
        ("B-LOC", 5, "greenville", 20, 30),
    ]
    assert list(entities[0]) == ["entity", "score", "index", "word", "start", "end"]
    score = np.exp(6) / (np.exp(6) + 4)
    assert all(type(e["score"]) is float and e["score"] == pytest.approx(score, abs=1e-6) for e in entities)
    json.dumps(entities)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_entities(strategy):
    entities = found(strategy=strategy)
    assert named(entities) == [("PER", "jim henson", 0, 10), ("LOC", "greenville", 20, 30)]
    assert list(entities[0]) == ["entity_group", "score", "word", "start", "end"]
    json.dumps(entities)


def test_ignored_labels():
    assert named(found(ignore_labels=("O", "PER"))) == [("LOC", "greenville", 20, 30)]
    assert [e["word"] for e in found(ignore_labels=(), strategy="none")] == TOKENS
    assert [group for group, *_ in named(found(ignore_labels=[]))] == ["PER", "O", "LOC", "O"]
    # As in transformers, what is ignored has the name under which it would be given.
    assert named(found(ignore_labels=("O", "B-PER"))) == named(found())
    assert [e["entity"] for e in found(ignore_labels=("O", "B-PER"), strategy="none")] == ["I-PER", "B-LOC"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ["", " \u200b "])
def test_a_text_without_a_token_has_no_entity(strategy, text):
    one = encoded(text)
    logits = np.ones((2, len(LABELS)), dtype=np.float32)
    assert entities_of_text(one, [{"logits": logits}], EntityOptions(strategy, ())) == []
    assert best_labels(one, [{"logits": logits}]).shape == (0,)


@pytest.mark.parametrize(
    ("strategy", "label"), [("first", "PER"), ("average", "O"), ("max", "LOC")], ids=["first", "average", "max"]
)
def test_a_word_has_one_label(strategy, label):
    """The first token says PER, the last is surest of LOC, all of them together are for O."""
    one = encoded("hensonia")
    assert len(one.tokens) > 1
    probabilities = np.full((len(one.tokens), 5), 0.01, dtype=np.float32)
    probabilities[:, OUT] = 0.45
    probabilities[0, B_PER], probabilities[-1, B_LOC] = 0.5, 0.53
    logits = np.zeros((len(one.tokens) + 2, 5), dtype=np.float32)
    logits[1:-1] = np.log(probabilities)
    (entity,) = entities_of_text(one, [{"logits": logits}], EntityOptions(strategy, ()))
    assert named([entity]) == [(label, "hensonia", 0, 8)]


def test_of_equally_sure_tokens_the_first_counts():
    one = encoded("hensonia")
    numbers = [B_LOC, *[B_PER] * (len(one.tokens) - 1)]
    (entity,) = entities_of_text(one, logits_of(one, numbers, size=200.0), EntityOptions("max"))
    assert entity["entity_group"] == "LOC"


# ---- several windows


@given(st.integers(1, 60), st.integers(5, 14), st.data())
def test_each_token_is_taken_from_the_window_that_shows_most_around_it(words, max_length, data):
    stride = data.draw(st.integers(0, max_length - 4))
    one = encoded("jim " * words, max_length=max_length, stride=stride)
    outputs = []
    for number, window in enumerate(one.windows):  # the label tells the window
        logits = np.zeros((len(window.input_ids), len(one.windows)), dtype=np.float32)
        logits[:, number] = 9.0
        outputs.append({"logits": logits})
    taken = best_labels(one, outputs)
    for token in range(words):
        margins = {
            number: min(token - window.first_token, window.first_token + window.token_count - 1 - token)
            for number, window in enumerate(one.windows)
            if window.first_token <= token < window.first_token + window.token_count
        }
        assert taken[token] == min(margins, key=lambda number: (-margins[number], number))
    assert np.allclose(token_scores(one, outputs).sum(axis=1), 1)


def test_a_long_text_gives_the_tokens_that_a_long_row_would():
    text = f"{TEXT} " * 20
    whole, cut = encoded(text), encoded(text, max_length=16, stride=5)
    assert len(whole.windows) == 1 and len(cut.windows) > 10
    for strategy in STRATEGIES:
        options = EntityOptions(strategy)
        entities = entities_of_text(whole, logits_of(whole, RIGHT * 20), options)
        assert len(entities) == (60 if strategy == "none" else 40)
        assert entities_of_text(cut, logits_of(cut, RIGHT * 20), options) == entities


def test_of_entities_of_two_windows_the_longer_is_kept():
    one = encoded("jim henson jim henson jim henson", max_length=6, stride=2)
    assert [(window.first_token, window.token_count) for window in one.windows] == [(0, 4), (2, 4)]
    outputs = logits_of(one, [OUT, OUT, B_PER, I_PER, I_PER, OUT])
    assert named(entities_of_text(one, outputs, EntityOptions("simple"))) == [("PER", "jim henson jim", 11, 25)]


def test_of_equally_long_ones_the_surer_is_kept():
    one = encoded("jim henson jim henson jim henson", max_length=6, stride=2)
    first, second = (
        logits_of(one, [OUT, OUT, B_PER, I_PER, OUT, OUT]),
        logits_of(one, [OUT, OUT, B_LOC, I_LOC, OUT, OUT], size=9.0),
    )
    mixed = [first[0], second[1]]
    (entity,) = entities_of_text(one, mixed, EntityOptions("simple"))
    assert entity["entity_group"] == "LOC"
    (entity,) = entities_of_text(one, [second[0], first[1]], EntityOptions("simple"))
    assert entity["entity_group"] == "LOC"


def test_padding_behind_the_tokens_is_ignored():
    one = encoded()
    (outputs,) = logits_of(one, RIGHT)
    padded = np.concatenate([outputs["logits"], np.full((5, 5), 99, dtype=np.float32)])
    for strategy in STRATEGIES:
        options = EntityOptions(strategy)
        assert entities_of_text(one, [{"logits": padded}], options) == entities_of_text(one, [outputs], options)


def test_what_is_long_is_decoded_where_nobody_waits():
    assert not is_slow_to_join(encoded("jim " * 3000), EntityOptions())
    assert is_slow_to_join(encoded("jim " * 6000), EntityOptions())


# ---- options


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"aggregation_strategy": "best"}, "there is no aggregation_strategy 'best'"),
        ({"aggregation_strategy": None}, "there is no aggregation_strategy None"),
        ({"ignore_labels": "O"}, "ignore_labels must be a list of labels, not 'O'"),
        ({"ignore_labels": [0]}, r"ignore_labels must be a list of labels, not \[0\]"),
    ],
)
def test_a_wrong_option_is_named(options, reason):
    with pytest.raises(UsageError, match=reason):
        EntityOptions(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stride": -1}, "stride must be a whole number of at least 0, not -1"),
        ({"stride": 1.5}, "stride must be a whole number of at least 0, not 1.5"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, not 0"),
        ({"max_length": True}, "max_length must be a whole number of at least 1, not True"),
        ({"delimiter": 3}, "delimiter must be a text, not 3"),
    ],
)
def test_a_wrong_stride_is_named(options, reason):
    with pytest.raises(UsageError, match=reason):
        StrideOptions(**options)


def test_options_are_plain_values():
    assert EntityOptions("MAX", ["O", "PER"]) == EntityOptions("max", ("O", "PER"))
    assert hash(EntityOptions(ignore_labels=["O"])) == hash(EntityOptions())
    assert EntityOptions(ignore_labels={"b", "a"}).ignore_labels == ("a", "b")
    assert StrideOptions(np.int64(3), np.int32(20)) == StrideOptions(3, 20)
    assert type(StrideOptions(np.int64(0)).stride) is int


# ---- for a person


def test_entities_as_text():
    first, second = entities_text(found()).splitlines()
    assert first == "jim henson  PER  (score 0.9902, characters 0 to 10)" and second.startswith("greenville  LOC  (")
    assert entities_text(found(strategy="none")).splitlines()[1].startswith("henson  I-PER  (")
    assert entities_text([]) == "(no entities)"
