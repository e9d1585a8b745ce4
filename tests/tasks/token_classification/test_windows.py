"""neuronbert.tasks.token_classification.windows against the windows that `tokenizers` itself makes of a text."""

import json
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO
from tokenizers import models, pre_tokenizers, processors, trainers

from neuronbert.checkpoint.tokenizer import RowLimit, Tokenizer
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.token_classification.options import StrideOptions
from neuronbert.tasks.token_classification.windows import SplitText, as_text, encode_texts, row_lengths

PIECES = (
    *"aZé9ßİ漢🙂?.,-[]()",
    *("\u0301", "\u200b", "\u200d", "\ufeff", "\u00ad", "\x00", "\ufffd", "\t", "\r\n", "\u2028", " ", " ", " "),
    *("puppet ", "Mississippi ", "cafe\u0301 ", "👩‍👩‍👧‍👦", "北京是", "[SEP]", "[CLS]", "</s>", "İstanbul", "ﬁ", "½"),
)
PIECE = st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"]))
TEXT = st.lists(PIECE, max_size=60).map("".join)
WORDS = st.lists(st.lists(PIECE, min_size=1, max_size=4).map("".join), max_size=12)
BERT_CONFIG = {"model_max_length": 512, "cls_token": "[CLS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
ROBERTA_CONFIG = {"model_max_length": 512, "cls_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def demo_backend() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))


def byte_level(post_processor, **pre_tokenizer) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(**pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["Jim Henson was a nice puppet maker from Greenville.", "café naïve 北京"], trainer)
    backend.post_processor = post_processor
    return backend


def roberta(add_prefix_space: bool = False) -> tokenizers.Tokenizer:
    post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
    return byte_level(post_processor, add_prefix_space=add_prefix_space)


def template() -> tokenizers.Tokenizer:
    """Special tokens and types of them that no model has, so that nothing can be assumed of them.

    The text's own type is 0, as it is everywhere: tokenizers forgets any other one in all windows but the first.
    """
    specials = [("<s>", 0), ("</s>", 2), ("<mask>", 4)]
    single, pair = "<s>:2 <mask>:1 $A:0 </s>:4", "<s> $A </s> $B </s>"
    return byte_level(processors.TemplateProcessing(single=single, pair=pair, special_tokens=specials))


TOKENIZERS = {
    "demo": (demo_backend, BERT_CONFIG),
    "roberta": (roberta, ROBERTA_CONFIG),
    "roberta, spaced": (lambda: roberta(add_prefix_space=True), ROBERTA_CONFIG),
    "template": (template, ROBERTA_CONFIG),
    "padded on the left": (demo_backend, {**BERT_CONFIG, "padding_side": "left"}),
}
CACHE = {}


def pair_of(name):
    """Our tokenizer, and one of the same kind whose own windows are expected."""
    if name not in CACHE:
        make, config = TOKENIZERS[name]
        CACHE[name] = Tokenizer(make(), config), make()
    return CACHE[name]


@pytest.fixture
def demo():
    return Tokenizer.from_files(DEMO)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(text=TEXT, max_length=st.integers(8, 40), stride=st.integers(0, 4))
@example(text="", max_length=8, stride=0)
@example(text="\u200b", max_length=8, stride=3)
@example(text="puppet " * 50, max_length=12, stride=4)
@example(text="a [SEP] b\r\nc", max_length=40, stride=0)
def test_windows_are_those_of_tokenizers(name, text, max_length, stride):
    ours, backend = pair_of(name)
    backend.enable_truncation(max_length, stride=stride)
    encoding = backend.encode(text)
    expected = [encoding, *encoding.overflowing]
    (found,) = encode_texts(ours, [text], StrideOptions(stride, max_length))
    assert (found.text, found.words) == (text, None)
    assert len(found.windows) == len(expected)
    for window, own in zip(found.windows, expected):
        assert window.input_ids.tolist() == own.ids
        assert window.token_type_ids.tolist() == own.type_ids
        assert window.input_ids.dtype == window.token_type_ids.dtype == np.int64
        places = [place for place, side in enumerate(own.sequence_ids) if side is not None]
        assert places == list(range(window.text_start, window.text_start + window.token_count))
        for place in places:
            token = window.first_token + place - window.text_start
            assert found.tokens[token] == own.tokens[place] and found.ids[token] == own.ids[place]
            # At the first token of a later window tokenizers takes a space of the text for one that it added itself.
            if not (name == "roberta, spaced" and place == window.text_start and window.first_token):
                assert found.offsets[token] == own.offsets[place]


@given(text=TEXT, max_length=st.integers(4, 20), stride=st.none() | st.integers(0, 1))
def test_every_token_is_in_a_window_and_has_its_place_in_the_text(text, max_length, stride):
    tokenizer, _ = pair_of("demo")
    (found,) = encode_texts(tokenizer, [text], StrideOptions(stride, max_length))
    seen = set()
    for window in found.windows:
        assert len(window.input_ids) <= max_length
        own = range(window.first_token, window.first_token + window.token_count)
        shown = window.input_ids[window.text_start : window.text_start + window.token_count]
        assert shown.tolist() == found.ids[own.start : own.stop].tolist()
        seen.update(own)
    assert seen == set(range(len(found.ids))) and len(found.ids) == len(found.tokens) == len(found.offsets)
    for token, (start, end) in zip(found.tokens, found.offsets):
        assert 0 <= start < end <= len(text)
        shown = text[start:end]
        if shown.isascii() and shown.isprintable() and token != "[UNK]" and shown not in ("[SEP]", "[CLS]"):
            assert shown.lower() == (token[2:] if token.startswith("##") else token)


@given(WORDS, st.sampled_from([" ", "", ", "]))
def test_words_are_tokenised_one_by_one(words, delimiter):
    ours, backend = pair_of("demo")
    backend.no_truncation()
    expected = backend.encode(words, is_pretokenized=True, add_special_tokens=False)
    (found,) = encode_texts(ours, [words], StrideOptions(delimiter=delimiter))
    assert found.text == delimiter.join(words)
    assert found.ids.tolist() == expected.ids and found.tokens == expected.tokens
    starts = np.cumsum([0, *(len(word) + len(delimiter) for word in words)])
    shifted = [
        (start + starts[word], end + starts[word]) for (start, end), word in zip(expected.offsets, expected.word_ids)
    ]
    assert found.offsets == shifted


def test_texts_that_are_alike_are_encoded_once(demo, monkeypatch):
    asked = []
    encode = demo.encode
    monkeypatch.setattr(demo, "encode", lambda texts: asked.extend(texts) or encode(texts))
    split = SplitText("Jim Henson", ((0, 3), (4, 10)))
    found = encode_texts(demo, ["Jim Henson", split, "Jim Henson", ["Jim", "Henson", "Jim"]])
    assert asked == ["Jim Henson", "Jim", "Henson"]
    assert [each.ids.tolist() for each in found[:3]] == [found[0].ids.tolist()] * 3
    assert (found[1].text, found[1].words, found[0].words) == ("Jim Henson", split.words, None)
    assert found[3].text == "Jim Henson Jim"


def test_lengths_default_to_what_the_tokenizer_and_the_model_allow():
    def lengths(options=None, config=None, **tokenizer_config):
        return row_lengths(Tokenizer(demo_backend(), tokenizer_config, config), options or StrideOptions())

    assert lengths(model_max_length=512) == (512, 127)
    assert lengths(model_max_length=1026, config={"max_position_embeddings": 1026}) == (1026, 128)
    assert lengths(model_max_length=512, config={"max_position_embeddings": 64}) == (64, 15)
    assert lengths(StrideOptions(5, 20), model_max_length=512) == (20, 5)
    assert lengths(StrideOptions(0), model_max_length=512) == (512, 0)
    assert lengths(StrideOptions(max_length=600), config={"max_position_embeddings": 512}) == (512, 127)


def test_a_bucket_limits_rows(demo):
    demo.limit_length(32)
    (found,) = encode_texts(demo, ["Jim Henson was a nice puppet maker. " * 20])
    assert {len(window.input_ids) for window in found.windows[:-1]} == {32}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (StrideOptions(stride=18, max_length=20), "stride must be less than the 18 tokens of text in a row, not 18"),
        (StrideOptions(stride=512), "stride must be less than the 510 tokens of text in a row, not 512"),
        (StrideOptions(max_length=3), "a max_length of 3 leaves no room for text beside 3 special tokens"),
    ],
)
def test_rows_that_hold_nothing_or_never_advance_are_refused(demo, options, reason):
    with pytest.raises(UsageError, match=reason):
        row_lengths(demo, options)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (3, "3 is of type int, and no text"),
        (None, "None is of type NoneType, and no text"),
        ({"text": "a"}, "is of type dict, and no text"),
        (["a", 3], "a word is of type int, not str"),
    ],
)
def test_what_is_no_text_is_refused(demo, asked, reason):
    with pytest.raises(InputError, match=reason):
        encode_texts(demo, ["fine", asked])


def test_a_text_of_too_many_windows_is_refused_before_one_is_made(demo):
    demo.row_limit = RowLimit(3, "this runner", "fewer workers")
    options = StrideOptions(stride=0, max_length=12)
    assert len(encode_texts(demo, ["jim " * 30], options)[0].windows) == 3
    with pytest.raises(InputError, match="this text needs 4 windows, and this runner takes 3") as caught:
        encode_texts(demo, ["jim " * 31], options)
    assert caught.value.hint == "a shorter text, a smaller stride, or fewer workers"
    demo.row_limit = RowLimit(3, "neuronbert")
    with pytest.raises(InputError) as caught:
        encode_texts(demo, ["jim " * 31], options)
    assert caught.value.hint == "a shorter text, a smaller stride, or a larger max_length"


def test_an_example_can_be_copied_to_another_process(demo):
    (found,) = encode_texts(demo, ["Jim Henson"])
    copy = pickle.loads(pickle.dumps(found))
    assert (copy.text, copy.tokens, copy.vocabulary.labels) == (found.text, found.tokens, found.vocabulary.labels)
    assert as_text(("Jim", "Henson")) == ("Jim", "Henson")


@pytest.mark.parametrize(
    ("config", "unk_id"), [({"unk_token": "[UNK]"}, 100), ({"unk_token": {"content": "[UNK]"}}, 100), ({}, -1)]
)
def test_the_tokenizer_knows_its_token_for_unknown_text(config, unk_id):
    tokenizer = Tokenizer.from_bytes(demo_backend().to_str().encode(), json.dumps(config).encode())
    assert tokenizer.unk_id == unk_id
