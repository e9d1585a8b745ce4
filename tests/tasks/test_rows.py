"""neuronbert.tasks.rows against the rows that transformers' fast tokenizers and `tokenizers` itself make."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, List, Optional, Tuple

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import FAMILIES, write_vocabulary
from tokenizers import models, pre_tokenizers

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.checkpoint.tokenizer_files import read_tokenizer
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.rows import DEFAULT_LENGTH, TextPair, check_text, encode_rows, longest_first, row_limit

POSITIONS = 64  # tokens of the longest row
PIECES = (
    *(
        "the ",
        "who ",
        "was ",
        "puppet",
        "jim henson ",
        "hensons",
        "The ",
        "zzz",
        "é",
        "中",
        "?",
        ".",
        ",",
        "'",
        " ",
        "\t",
    ),
    *("İ", "🙂", "e\u0301", "\u200b", "\n", "\x00", "ß", "[SEP]", "[CLS]", "</s>", "<mask>", "[PAD]"),
)
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"])), max_size=30).map("".join)


@lru_cache(maxsize=None)
def files_of(family: str, folder: Path) -> Tuple[bytes, bytes]:
    """tokenizer.json and tokenizer_config.json of a tiny checkpoint of ``family``."""
    write_vocabulary(folder, family)
    files = read_tokenizer(folder, family, POSITIONS)
    return files["tokenizer.json"], files["tokenizer_config.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def config_of(family: str) -> Any:
    # RoBERTa counts positions from the padding's id + 1.
    positions = POSITIONS + 2 if family == "roberta" else POSITIONS
    return {"model_type": family, "max_position_embeddings": positions, "pad_token_id": int(family == "roberta")}


def ours(family: str, folder: Path, **settings: Any) -> Tokenizer:
    tokenizer_json, tokenizer_config = files_of(family, folder / family)
    tokenizer_config = json.dumps({**json.loads(tokenizer_config), **settings}).encode()
    return Tokenizer.from_bytes(tokenizer_json, tokenizer_config, config_of(family))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(family: str, folder: Path) -> Tokenizer:
    return ours(family, folder)


def transformers_tokenizer(family: str, folder: Path, **settings: Any) -> Any:
    pytest.importorskip("torch")
    from neuronbert.checkpoint.reference_model import transformers

    backend = tokenizers.Tokenizer.from_buffer(files_of(family, folder / family)[0])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


@pytest.fixture(scope="module")
def theirs(family: str, folder: Path) -> Any:
    """transformers' fast tokenizer of the same tokenizer.json."""
    return transformers_tokenizer(family, folder)


def assert_same_row(tokenizer: Tokenizer, theirs: Any, asked: Any, max_length: Optional[int]) -> None:
    """Ids, token types and ``truncated`` of one text or pair; a batch, for alone transformers drops an empty second."""
    expected = theirs([tuple(asked) if isinstance(asked, TextPair) else asked], truncation=True,
                      max_length=max_length or POSITIONS, return_token_type_ids=True)  # fmt: skip
    whole = theirs([tuple(asked) if isinstance(asked, TextPair) else asked])
    (cut,) = encode_rows(tokenizer, [asked], max_length)
    assert cut.row.input_ids.tolist() == expected["input_ids"][0]
    assert cut.row.token_type_ids.tolist() == expected["token_type_ids"][0]
    assert cut.truncated == (len(whole["input_ids"][0]) > (max_length or POSITIONS))
    assert cut.row.input_ids.dtype == cut.row.token_type_ids.dtype == np.int64


@settings(max_examples=60)
@given(text=TEXT, max_length=st.one_of(st.none(), st.integers(5, POSITIONS)))
@example(text="", max_length=None)
@example(text="the " * (POSITIONS - 2), max_length=None)
@example(text="the " * (POSITIONS - 1), max_length=None)
@example(text="the " * 3, max_length=5)
@example(text="the " * 4, max_length=5)
def test_the_row_of_a_text_is_that_of_transformers(
    tokenizer: Tokenizer, theirs: Any, text: str, max_length: Optional[int]
) -> None:
    assert_same_row(tokenizer, theirs, text, max_length)


@settings(max_examples=60)
@given(first=TEXT, second=TEXT, max_length=st.one_of(st.none(), st.integers(5, POSITIONS)))
@example(first="", second="", max_length=None)
@example(first="", second="the " * 80, max_length=None)
@example(first="the " * 80, second="", max_length=7)
@example(first="the who " * 80, second="was a puppet " * 80, max_length=None)
@example(first="the " * 5, second="was " * 5, max_length=12)  # of an odd room, the second of two alike has more
@example(first="the " * 9, second="was " * 2, max_length=5)
def test_the_row_of_a_pair_is_that_of_transformers(
    tokenizer: Tokenizer, theirs: Any, first: str, second: str, max_length: Optional[int]
) -> None:
    assert_same_row(tokenizer, theirs, TextPair(first, second), max_length)


def test_many_inputs_are_the_rows_of_each(tokenizer: Tokenizer) -> None:
    inputs = ["the puppet", TextPair("the puppet", "who"), "", TextPair("who", "the puppet"), "the puppet"] * 3
    for together, asked in zip(encode_rows(tokenizer, inputs, 6), inputs):
        (alone,) = encode_rows(tokenizer, [asked], 6)
        np.testing.assert_array_equal(together.row, alone.row)
        assert together.truncated == alone.truncated
    assert encode_rows(tokenizer, []) == []


def test_a_text_of_many_inputs_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, seen = ours("bert", folder), []  # type: ignore[var-annotated]
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda texts: seen.extend(texts) or encode(texts))
    encode_rows(tokenizer, ["who", TextPair("who", "the"), TextPair("the", "who"), TextPair("was", "was")])
    assert seen == ["who", "the", "was"]


# ---- longest_first


def lengths_of(backend: tokenizers.Tokenizer, first: int, second: int) -> Tuple[int, int]:
    encoding = backend.encode("a " * first, "b " * second)
    return encoding.sequence_ids.count(0), encoding.sequence_ids.count(1)


def test_longest_first_is_that_of_tokenizers() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for room in range(1, 14):
        backend.enable_truncation(room, strategy="longest_first")
        for first in range(11):
            for second in range(11):
                assert longest_first(first, second, room) == lengths_of(backend, first, second), (first, second, room)


@given(first=st.integers(0, 10**6), second=st.integers(0, 10**6), room=st.integers(1, 10**4))
def test_longest_first_wastes_nothing(first: int, second: int, room: int) -> None:
    kept = longest_first(first, second, room)
    assert sum(kept) == min(room, first + second)
    assert 0 <= kept[0] <= first and 0 <= kept[1] <= second
    if sum(kept) < first + second:  # no text was cut below the other
        assert kept[0] == first or kept[1] == second or abs(kept[0] - kept[1]) <= 1


# ---- special tokens


def tokens_of(tokenizer: Tokenizer, asked: Any, max_length: Optional[int] = None) -> List[str]:
    (cut,) = encode_rows(tokenizer, [asked], max_length)
    return [tokenizer.backend.id_to_token(number) for number in cut.row.input_ids.tolist()]


def types_of(tokenizer: Tokenizer, asked: Any) -> List[int]:
    (cut,) = encode_rows(tokenizer, [asked])
    return list(cut.row.token_type_ids.tolist())


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra"], indirect=True)
def test_a_bert_separates_two_texts_once_and_gives_the_second_a_type_of_its_own(tokenizer: Tokenizer) -> None:
    assert tokens_of(tokenizer, "the puppet") == ["[CLS]", "the", "puppet", "[SEP]"]
    assert types_of(tokenizer, "the puppet") == [0, 0, 0, 0]
    pair = TextPair("the puppet", "who was")
    assert tokens_of(tokenizer, pair) == ["[CLS]", "the", "puppet", "[SEP]", "who", "was", "[SEP]"]
    assert types_of(tokenizer, pair) == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("family", ["roberta"], indirect=True)
def test_a_roberta_separates_two_texts_twice_and_knows_one_type(tokenizer: Tokenizer) -> None:
    single = tokens_of(tokenizer, "he")
    assert [single[0], single[-1]] == ["<s>", "</s>"] and single.count("</s>") == 1
    pair = TextPair("he", " the")
    assert tokens_of(tokenizer, pair) == ["<s>", "he", "</s>", "</s>", "Ġthe", "</s>"]
    assert set(types_of(tokenizer, pair)) == {0}


def test_empty_texts_are_rows_of_special_tokens(tokenizer: Tokenizer, family: str) -> None:
    cls, sep, between = ("<s>", "</s>", 2) if family == "roberta" else ("[CLS]", "[SEP]", 1)
    assert tokens_of(tokenizer, "") == [cls, sep]
    assert tokens_of(tokenizer, TextPair("", "")) == [cls, *[sep] * (between + 1)]
    assert not any(cut.truncated for cut in encode_rows(tokenizer, ["", TextPair("", "")], 6))


# ---- which end is cut


def test_a_tokenizer_that_truncates_on_the_left_keeps_the_end(family: str, folder: Path) -> None:
    tokenizer = ours(family, folder, truncation_side="left")
    theirs = transformers_tokenizer(family, folder, truncation_side="left")
    for asked in ("the puppet was a nice jim", TextPair("the puppet", "who was a nice jim henson"), "", "the"):
        for max_length in (5, 6, 9, None):
            assert_same_row(tokenizer, theirs, asked, max_length)


def test_so_does_one_whose_tokenizer_json_says_it(folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_buffer(files_of("bert", folder / "bert")[0])
    backend.enable_truncation(9, direction="left")
    saved = backend.to_str().encode()
    assert tokens_of(Tokenizer.from_bytes(saved, b"{}"), "a the puppet was", 5)[1:-1] == ["the", "puppet", "was"]
    settings = b'{"truncation_side": "right"}'
    assert tokens_of(Tokenizer.from_bytes(saved, settings), "a the puppet was", 5)[1:-1] == ["a", "the", "puppet"]


# ---- how long a row may be


def test_a_row_is_as_long_as_model_and_caller_allow(tokenizer: Tokenizer) -> None:
    assert row_limit(tokenizer, None) == POSITIONS
    assert row_limit(tokenizer, 20) == 20
    assert row_limit(tokenizer, POSITIONS + 1) == POSITIONS  # the model has no more positions
    (cut,) = encode_rows(tokenizer, ["the " * 500], 10_000)
    assert len(cut.row.input_ids) == POSITIONS and cut.truncated


def test_a_compiled_shape_is_a_limit_too(folder: Path) -> None:
    tokenizer = ours("bert", folder)
    tokenizer.limit_length(32)
    assert row_limit(tokenizer, None) == row_limit(tokenizer, 40) == 32
    (cut,) = encode_rows(tokenizer, [TextPair("the " * 90, "who " * 90)])
    assert len(cut.row.input_ids) == 32


def test_a_tokenizer_that_knows_no_limit_has_the_usual_one(folder: Path) -> None:
    tokenizer = Tokenizer.from_bytes(files_of("bert", folder / "bert")[0], b"{}")
    assert row_limit(tokenizer, None) == DEFAULT_LENGTH
    assert row_limit(tokenizer, 700) == 700


def test_a_length_that_special_tokens_fill_is_refused_with_the_least_that_is_none(
    tokenizer: Tokenizer, family: str
) -> None:
    special = 4 if family == "roberta" else 3
    for max_length in range(1, special + 1):
        with pytest.raises(UsageError, match=f"^a max_length of {max_length} leaves no room for text beside") as caught:
            encode_rows(tokenizer, ["the"], max_length)
        assert f"{special} special tokens" in caught.value.message
        assert caught.value.hint == f"a max_length of {special + 1} or more"
    for asked in ("who was the puppet", TextPair("the puppet", "who")):
        (cut,) = encode_rows(tokenizer, [asked], special + 1)
        assert len(cut.row.input_ids) == special + 1 and cut.truncated


@pytest.mark.parametrize("value", [None, 5, b"text", ["text"]])
def test_what_is_no_text_is_refused_by_its_type(value: Any) -> None:
    with pytest.raises(InputError, match=f"^the query is of type {type(value).__name__}, not str"):
        check_text("query", value)
    check_text("query", "")
