"""neuronbert.tasks.token_classification.tagging: what the labels of tokens mean for words and for characters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.token_classification.entity_f1 import Span
from neuronbert.tasks.token_classification.options import StrideOptions
from neuronbert.tasks.token_classification.tagging import Found, equal_labels, found_in
from neuronbert.tasks.token_classification.windows import SplitText, encode_texts
from token_classification.tiny_taggers import LABELS, logits_of

CONFIG = {"id2label": {str(number): label for number, label in enumerate(LABELS)}}
TOKENIZER = Tokenizer.from_bytes(
    (DEMO / "tokenizer.json").read_bytes(), (DEMO / "tokenizer_config.json").read_bytes(), CONFIG
)
NUMBERS = {label: number for number, label in enumerate(LABELS)}


def split(text):
    """The text with the places of what white space separates in it."""
    words, begun = [], 0
    for word in text.split(" "):
        words.append((begun, begun + len(word)))
        begun += len(word) + 1
    return SplitText(text, tuple(words))


def found(asked, labels, tokenizer=TOKENIZER, **options):
    (example,) = encode_texts(tokenizer, [asked], StrideOptions(**options))
    return found_in(example, logits_of(example, [NUMBERS[label] for label in labels]))


def test_a_word_has_the_label_of_its_first_token():
    asked = split("hensonia was (Jim's)")
    (example,) = encode_texts(TOKENIZER, [asked])
    assert example.tokens == ["henson", "##ia", "was", "(", "jim", "'", "s", ")"]
    one = found(asked, ["B-LOC", "I-PER", "O", "B-PER", "I-LOC", "O", "O", "O"])
    assert one.tags == ("B-LOC", "O", "B-PER")
    assert one.entities == {Span("LOC", 0, 8), Span("PER", 13, 20)}
    assert one.labels.tolist() == [3, 2, 0, 1, 4, 0, 0, 0]


def test_without_words_those_of_the_tokenizer_count():
    labels = ["B-LOC", "I-PER", "O", "O", "B-PER", "O", "O", "O"]
    one = found("hensonia was (Jim's)", labels)
    assert one.tags == ("B-LOC", "O", "O", "B-PER", "O", "O", "O")
    assert one.entities == {Span("LOC", 0, 8), Span("PER", 14, 17)}


def test_a_word_without_a_token_is_outside():
    one = found(SplitText("Jim \u200b Henson", ((0, 3), (4, 5), (6, 12))), ["B-PER", "I-PER"])
    assert one.tags == ("B-PER", "O", "I-PER")
    assert one.entities == {Span("PER", 0, 3), Span("PER", 6, 12)}


def test_a_space_before_a_word_is_no_part_of_it():
    """Byte-level tokenizers can be told to count it to the word."""
    backend = Backend(models.BPE({"a": 0, "b": 1, "Ġ": 2, "Ġb": 3, "<s>": 4, "</s>": 5}, [("Ġ", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 5), ("<s>", 4), trim_offsets=False, add_prefix_space=False
    )
    tokenizer = Tokenizer(backend, {}, CONFIG)
    (example,) = encode_texts(tokenizer, ["a b"])
    assert example.offsets == [(0, 1), (1, 3)]
    assert found("a b", ["O", "B-PER"], tokenizer).entities == {Span("PER", 2, 3)}


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=40), st.integers(5, 20))
def test_windows_change_nothing_of_what_is_clear(labels, max_length):
    text = " ".join(["jim"] * len(labels))
    whole, cut = found(split(text), labels), found(split(text), labels, max_length=max_length)
    assert whole.tags == cut.tags == tuple(labels)
    assert whole.entities == cut.entities == found(text, labels).entities


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_of_what_is_no_number_nothing_is_found(value):
    (example,) = encode_texts(TOKENIZER, ["Jim Henson"])
    outputs = logits_of(example, [1, 2])
    outputs[0]["logits"][1, 0] = value
    assert found_in(example, outputs)[2:] == ((), frozenset())
    assert equal_labels([(found_in(example, outputs), found("Jim Henson", ["B-PER", "I-PER"]))]) == 0.0


def named(names, *numbers):
    return Found(np.array(numbers, dtype=np.int64), names, (), frozenset())


def test_equal_labels_are_those_of_equal_names():
    ours = named(("O", "PER", "LOC"), 0, 1, 2, 1)
    assert equal_labels([(ours, named(("O", "PER", "LOC"), 0, 1, 1, 0))]) == 0.5
    assert equal_labels([(ours, named(("PER", "O", "MISC"), 1, 0, 2, 1))]) == 0.5
    assert equal_labels([(ours, named(("O", "PER", "LOC"), 0, 1))]) == 0.0
    assert equal_labels([(ours, ours), (ours, named(("O", "PER"), 1, 1, 1, 1))]) == 0.75
    assert equal_labels([(named(("O",)), named(("O",)))]) == 1.0
    assert equal_labels([(named(("O", "PER"), -1), named(("PER", "O"), 0))]) == 0.0
