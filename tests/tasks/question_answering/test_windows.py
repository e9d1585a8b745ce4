"""neuronbert.tasks.question_answering.windows against the windows that `tokenizers` itself makes of a pair of texts."""

import copy
import json
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from neuronbert.checkpoint.recent_texts import RecentTexts
from neuronbert.checkpoint.tokenizer import RowLimit, Tokenizer
from neuronbert.engine.batches import collate
from neuronbert.errors import CheckpointError, InputError, UsageError
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.windows import Window, encode_examples, window_lengths

TRAINING_TEXT = [
    "Who was Jim Henson? Jim Henson was a nice puppet maker from Greenville, Mississippi.",
    "The café in São Paulo serves naïve façade résumé; Straße, Москва, 北京, 東京, 👩‍👩‍👧 family.",
    "Tabs\tand\r\nlines, numbers 1234567890, and punctuation: !?.,;()[]{}",
]
PIECES = (
    *"aZé9ßİ漢🙂?.,-[]()",
    *("\u0301", "\u200b", "\u200d", "\ufeff", "\u00ad", "\x00", "\ufffd", "\t", "\r\n", "\u2028", " ", " ", " "),
    *("puppet ", "Mississippi ", "cafe\u0301 ", "👩‍👩‍👧‍👦", "北京是", "[SEP]", "[CLS]", "</s>", "İstanbul", "ﬁ", "½"),
)
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=40)
TEXT = TEXTS.map("".join)


def demo_backend() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))


def bert_processing() -> tokenizers.Tokenizer:
    """As older releases of transformers save a BERT tokenizer: another post-processor, cased."""
    backend = demo_backend()
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return backend


def byte_level(post_processor, **pre_tokenizer) -> tokenizers.Tokenizer:
    """A small byte-level tokenizer as RoBERTa's is."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(**pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TRAINING_TEXT, trainer)
    backend.post_processor = post_processor
    return backend


def roberta(add_prefix_space: bool = False) -> tokenizers.Tokenizer:
    post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
    return byte_level(post_processor, add_prefix_space=add_prefix_space)


def template() -> tokenizers.Tokenizer:
    """Token types and special tokens that no model has, so that nothing can be assumed of them."""
    specials = [("<s>", 0), ("</s>", 2), ("<mask>", 4)]
    post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s>:2 <mask>:1 $A:3 </s>:1 </s>:4 $B:1 </s>:6 <mask>:7", special_tokens=specials
    )
    return byte_level(post_processor, add_prefix_space=True)


BERT_CONFIG = {"model_max_length": 512, "cls_token": "[CLS]", "pad_token": "[PAD]"}
ROBERTA_CONFIG = {"model_max_length": 512, "cls_token": {"content": "<s>"}, "pad_token": "<pad>"}
TOKENIZERS = {
    "demo": (demo_backend, BERT_CONFIG),
    "bert processing": (bert_processing, BERT_CONFIG),
    "roberta": (roberta, ROBERTA_CONFIG),
    "roberta, spaced": (lambda: roberta(add_prefix_space=True), ROBERTA_CONFIG),
    "template": (template, ROBERTA_CONFIG),
    "context first": (demo_backend, {**BERT_CONFIG, "padding_side": "left"}),
}
CACHE = {}


def pair_of(name):
    """Our tokenizer, and one of the same kind for the pair encoding of `tokenizers`."""
    if name not in CACHE:
        make, config = TOKENIZERS[name]
        CACHE[name] = Tokenizer(make(), config), make()
    return CACHE[name]


@pytest.fixture
def demo():
    return Tokenizer.from_files(DEMO)


def reference_windows(backend, question, context, max_seq_len, doc_stride, question_first=True):
    """The pair encoding and its overflow; None where `tokenizers` refuses or panics."""
    texts = (question, context) if question_first else (context, question)
    strategy = "only_second" if question_first else "only_first"
    backend.no_truncation()
    whole = backend.encode(*texts)
    sequence = 1 if question_first else 0
    tokens = whole.sequence_ids.count(sequence)
    room = max_seq_len - (len(whole) - tokens)
    if tokens > room and (room < 1 or doc_stride >= room):
        return None
    backend.enable_truncation(max_seq_len, stride=doc_stride, strategy=strategy)
    encoding = backend.encode(*texts)
    return [encoding, *encoding.overflowing]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(question=TEXT, context=TEXT, max_seq_len=st.integers(8, 60), doc_stride=st.integers(0, 20))
@example(question="?", context="\u200b", max_seq_len=20, doc_stride=3)
@example(question="\u200b", context="\u200b", max_seq_len=8, doc_stride=3)
@example(question="Who?", context="puppet " * 50, max_seq_len=12, doc_stride=4)
@example(question="Who [CLS] is?", context="a\r\nb\tc", max_seq_len=384, doc_stride=128)
def test_windows_are_those_of_tokenizers(name, question, context, max_seq_len, doc_stride):
    ours, backend = pair_of(name)
    doc_stride = min(doc_stride, max_seq_len - backend.num_special_tokens_to_add(True) - 1)
    expected = reference_windows(backend, question, context, max_seq_len, doc_stride, not ours.pads_left)
    options = WindowOptions(max_seq_len, doc_stride)
    if expected is None:
        try:
            windows = encode_examples(ours, [(question, context)], options)[0].windows
        except InputError:
            return
        # An overlap that leaves no step was lowered: one token at a time.
        assert np.diff([window.first_token for window in windows]).tolist() == [1] * (len(windows) - 1)
        return
    found = encode_examples(ours, [(question, context)], options)[0]
    sequence = 0 if ours.pads_left else 1
    assert len(found.windows) == len(expected)
    for window, encoding in zip(found.windows, expected):
        assert window.input_ids.tolist() == encoding.ids
        assert window.token_type_ids.tolist() == encoding.type_ids
        assert window.input_ids.dtype == window.token_type_ids.dtype == np.int64
        stop = window.context_start + window.token_count
        assert encoding.sequence_ids[window.context_start : stop] == [sequence] * window.token_count
        assert encoding.sequence_ids.count(sequence) == window.token_count
        shift = window.first_token - window.context_start
        for position in range(window.context_start, stop):
            # At the first token of a later window tokenizers takes a space of the text for one that it added itself.
            if not (name == "roberta, spaced" and position == window.context_start and window.first_token):
                assert found.encoded_context.encoding.token_to_chars(position + shift) == encoding.offsets[position]
            assert found.encoded_context.encoding.token_to_word(position + shift) == encoding.token_to_word(position)


def test_repeated_texts_are_encoded_once(demo):
    pairs = [("Who?", "Jim Henson"), ("When?", "Jim Henson"), ("Who?", "Jim Henson")]
    first, second, third = encode_examples(demo, pairs)
    assert first.encoded_context.encoding is second.encoded_context.encoding is third.encoded_context.encoding
    assert first.windows[0].input_ids.tolist() == third.windows[0].input_ids.tolist()
    assert [one.question for one in (first, second, third)] == ["Who?", "When?", "Who?"]


def test_many_pairs_are_encoded_as_one_is(demo):
    pairs = [(f"Who is number {number}?", f"Number {number} is Jim. " * number) for number in range(1, 60)]
    for pair, example_ in zip(pairs, encode_examples(demo, pairs, WindowOptions(64, 16))):
        alone = encode_examples(demo, [pair], WindowOptions(64, 16))[0]
        assert (example_.question, example_.context) == pair
        assert [w.input_ids.tolist() for w in example_.windows] == [w.input_ids.tolist() for w in alone.windows]


def test_truncation_and_padding_saved_with_the_tokenizer_do_not_apply():
    backend = demo_backend()
    backend.enable_truncation(8)
    backend.enable_padding(length=32, pad_id=7)
    tokenizer = Tokenizer.from_bytes(backend.to_str().encode(), b"{}")
    example_ = encode_examples(tokenizer, [("Who was Jim Henson?", "Jim Henson was a puppet maker in Mississippi")])[0]
    assert len(example_.windows) == 1
    assert example_.windows[0].token_count == 8 and len(example_.windows[0].input_ids) == 16
    assert tokenizer.pad_id == 7


def test_lengths_default_to_what_the_tokenizer_and_the_model_allow():
    def lengths(options=None, config=None, **tokenizer_config):
        return window_lengths(Tokenizer(demo_backend(), tokenizer_config, config), options or WindowOptions())

    assert lengths() == (384, 128)
    assert lengths(model_max_length=int(1e30)) == (384, 128)
    assert lengths(model_max_length=200) == (200, 100)
    assert lengths(config={"max_position_embeddings": 100}, model_max_length=512) == (100, 50)
    assert lengths(config={"max_position_embeddings": 514, "model_type": "roberta"}) == (384, 128)
    assert lengths(WindowOptions(512), config={"max_position_embeddings": 514, "model_type": "roberta"}) == (512, 128)
    without = {"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": None}
    assert lengths(WindowOptions(512), config=without) == (512, 128)
    assert lengths(WindowOptions(600), config={**without, "pad_token_id": 0}) == (513, 128)
    assert lengths(config={"max_position_embeddings": 100, "model_type": "another"}) == (100, 50)
    assert lengths(config={"max_position_embeddings": 100, "model_type": ["roberta"]}) == (100, 50)
    assert lengths(WindowOptions(max_seq_len=64), model_max_length=200) == (64, 32)
    assert lengths(WindowOptions(max_seq_len=64, doc_stride=10)) == (64, 10)


def test_a_folder_tells_all_that_is_needed(demo):
    assert (demo.cls_id, demo.pad_id, demo.max_length, demo.max_positions) == (101, 0, 512, 512)
    assert not demo.pads_left


def test_windows_are_never_longer_than_the_model_has_positions():
    tokenizer = Tokenizer(demo_backend(), {}, {"max_position_embeddings": 514, "model_type": "roberta"})
    assert window_lengths(tokenizer, WindowOptions(max_seq_len=600)) == (512, 128)
    windows = encode_examples(tokenizer, [("Who?", "puppet " * 590)], WindowOptions(max_seq_len=600))[0].windows
    assert [len(window.input_ids) for window in windows] == [512, 590 - 507 + 128 + 5]


def test_an_overlap_larger_than_the_window_is_refused_with_the_old_text(demo):
    with pytest.raises(ValueError, match=r"^`doc_stride` \(65\) is larger than `max_seq_len` \(64\)$"):
        encode_examples(demo, [("Who?", "Jim")], WindowOptions(64, 65))


@pytest.mark.parametrize(
    "options",
    [{"max_seq_len": 0}, {"doc_stride": -1}, {"max_question_len": 0}, {"max_seq_len": "384"}, {"doc_stride": 1.5}],
)
def test_options_that_make_no_sense_are_refused_by_name(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} parameter should be"):
        WindowOptions(**options)


def test_the_question_is_kept_whole_unless_told_otherwise(demo):
    question = "who " * 100
    whole = encode_examples(demo, [(question, "Jim")])[0].windows[0]
    assert len(whole.input_ids) == 100 + 3 + 1
    cut = encode_examples(demo, [(question, "Jim")], WindowOptions(max_question_len=64))[0].windows[0]
    assert len(cut.input_ids) == 64 + 3 + 1


def test_a_question_that_fills_the_window_is_refused_with_the_counts(demo):
    with pytest.raises(InputError) as caught:
        encode_examples(demo, [("who " * 62, "Jim")], WindowOptions(max_seq_len=65))
    assert "62 tokens and 3 special tokens" in caught.value.message and "65 tokens" in caught.value.message
    assert "a max_question_len of 31" in caught.value.hint
    allowed = encode_examples(demo, [("who " * 62, "Jim")], WindowOptions(65, max_question_len=61))
    assert allowed[0].windows[0].token_count == 1


def test_windows_advance_even_when_the_overlap_is_larger_than_the_room(demo):
    example_ = encode_examples(demo, [("who " * 57, "a b c d e f g")], WindowOptions(64, 64))[0]
    assert [window.first_token for window in example_.windows] == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["\u200b\u200c", " ", "\r\n\t", "\u0301"])
def test_texts_without_a_token_have_one_window(demo, text):
    example_ = encode_examples(demo, [(text, text)])[0]
    assert [window.input_ids.tolist() for window in example_.windows] == [[101, 102, 102]]
    assert example_.windows[0].token_count == 0


@pytest.mark.parametrize("name", ["question", "context"])
def test_empty_and_foreign_inputs_are_refused(demo, name):
    def ask(value):
        texts = {"question": "Who?", "context": "Jim", name: value}
        return encode_examples(demo, [(texts["question"], texts["context"])])

    with pytest.raises(InputError, match=f"`{name}` cannot be empty") as caught:
        ask("")
    assert caught.value.hint
    for value in (None, 5, b"bytes", ["Who?"]):
        with pytest.raises(InputError, match=f"the {name} is of type {type(value).__name__}, not str"):
            ask(value)


@pytest.mark.parametrize("count", [1, 10])
def test_half_a_surrogate_pair_does_not_move_the_offsets(demo, count):
    pairs = [(f"Who {number}?\ud800", "\udc00 Jim \ud83d Henson") for number in range(count)]
    for example_ in encode_examples(demo, pairs):
        assert example_.context == "\udc00 Jim \ud83d Henson"
        assert example_.encoded_context.encoding.token_to_chars(0) == (2, 5)
        assert example_.encoded_context.encoding.token_to_chars(1) == (8, 14)


def test_collate_pads_on_the_right(demo):
    windows = encode_examples(demo, [("Who?", "Jim Henson, the puppet maker"), ("Who is he?", "J")])
    windows = [one.windows[0] for one in windows]
    lengths = [len(window.input_ids) for window in windows]
    assert lengths[0] != lengths[1]
    for length in (None, 20):
        batch = collate(windows, 9, length)
        assert all(part.shape == (2, length or max(lengths)) and part.dtype == np.int64 for part in batch)
        assert batch.attention_mask.sum(axis=1).tolist() == lengths
        for row, window in enumerate(windows):
            assert batch.input_ids[row, : lengths[row]].tolist() == window.input_ids.tolist()
            assert batch.token_type_ids[row, : lengths[row]].tolist() == window.token_type_ids.tolist()
            assert set(batch.input_ids[row, lengths[row] :].tolist()) <= {9}
            assert not batch.token_type_ids[row, lengths[row] :].any()


def test_collate_refuses_a_window_that_is_too_long(demo):
    window = encode_examples(demo, [("Who?", "Jim Henson")])[0].windows[0]
    with pytest.raises(UsageError, match="a window of 7 tokens does not fit into 6"):
        collate([window], 0, 6)


def test_examples_and_windows_can_be_sent_to_another_process(demo):
    example_ = encode_examples(demo, [("Who?", "Jim Henson")])[0]
    copy = pickle.loads(pickle.dumps(example_))
    assert isinstance(copy.windows[0], Window)
    assert copy.encoded_context.encoding.token_to_chars(1) == (4, 10)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="has no tokenizer.json") as caught:
        Tokenizer.from_files(tmp_path)
    assert "save_pretrained" in caught.value.hint


def test_a_damaged_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CheckpointError, match="tokenizer.json cannot be read by tokenizers"):
        Tokenizer.from_files(tmp_path)
    contents = (DEMO / "tokenizer.json").read_bytes()
    with pytest.raises(CheckpointError, match="tokenizer_config.json is no JSON that can be read: it is truncated"):
        Tokenizer.from_bytes(contents, b"{")


def test_a_tokenizer_without_a_classification_token_is_refused():
    backend = json.loads((DEMO / "tokenizer.json").read_text(encoding="utf-8"))
    backend["post_processor"] = None
    with pytest.raises(CheckpointError, match="does not put a classification token before a pair of texts"):
        Tokenizer.from_bytes(json.dumps(backend).encode(), b"{}")


def test_more_windows_than_the_limit_are_refused_before_one_is_made(monkeypatch):
    tokenizer = Tokenizer.from_files(DEMO)
    tokenizer.row_limit = RowLimit(5, "the test", "a larger limit")
    options = WindowOptions(max_seq_len=20, doc_stride=20)  # they advance by one token
    room = 20 - 2 - tokenizer.template.special_tokens  # "Who?" is two tokens
    assert len(encode_examples(tokenizer, [("Who?", "a " * (room + 4))], options)[0].windows) == 5
    monkeypatch.setattr("neuronbert.tasks.question_answering.windows.window_ranges", None)
    with pytest.raises(InputError, match="needs 6 windows, and the test takes 5") as caught:
        encode_examples(tokenizer, [("Who?", "a " * (room + 5))], options)
    assert caught.value.hint == "a shorter context, a smaller doc_stride, or a larger limit"


def test_a_whole_shelf_of_books_is_no_document(demo):
    with pytest.raises(InputError, match="needs 19622 windows, and neuronbert takes 10000"):
        encode_examples(demo, [("Who?", "a " * 20_000)], WindowOptions(max_seq_len=384, doc_stride=384))


DEMO_TOKENIZER = Tokenizer.from_files(DEMO)
DOCUMENTS = [" ".join(TRAINING_TEXT * times) for times in (3, 9, 27)]


def same_examples(found, wanted):
    for one, other in zip(found, wanted):
        assert (one.question, one.context, len(one.windows)) == (other.question, other.context, len(other.windows))
        for window, same in zip(one.windows, other.windows):
            assert window[2:] == same[2:]
            assert window.input_ids.tobytes() == same.input_ids.tobytes() and window.input_ids.flags.writeable
            assert window.token_type_ids.tobytes() == same.token_type_ids.tobytes()
        assert one.encoded_context.encoding.offsets == other.encoded_context.encoding.offsets
        assert one.encoded_context.encoding.word_ids == other.encoded_context.encoding.word_ids
    return len(found) == len(wanted)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(TEXT, st.one_of(st.sampled_from(DOCUMENTS), TEXT)), max_size=4), max_size=6),
    st.integers(24, 64),
    st.integers(0, 8),
    st.sampled_from([0, 20_000, 1 << 20]),
)
def test_windows_are_the_same_whatever_was_asked_before(calls, max_seq_len, doc_stride, kept_bytes):
    options = WindowOptions(max_seq_len=max_seq_len, doc_stride=doc_stride, max_question_len=8)
    lasting, forgetful = (copy.copy(DEMO_TOKENIZER) for _ in range(2))
    lasting.recent, forgetful.recent = RecentTexts(kept_bytes), RecentTexts(0)
    for pairs in calls:
        assert same_examples(encode_examples(lasting, pairs, options), encode_examples(forgetful, pairs, options))
