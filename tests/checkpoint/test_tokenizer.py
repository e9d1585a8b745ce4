"""A tokenizer encodes every text, or says of which text and why it cannot."""

import copy
import gc
import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, List, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO
from tiny_checkpoints import write_vocabulary

from neuronbert.checkpoint.recent_texts import MIN_CHARACTERS, RecentTexts
from neuronbert.checkpoint.tokenizer import Tokenizer, once_per_tokenizer
from neuronbert.checkpoint.tokenizer_files import read_tokenizer
from neuronbert.engine.lines import prepare_lines
from neuronbert.errors import InputError
from neuronbert.tasks.base import option_kinds, options_of
from neuronbert.tasks.lines import json_entries
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.question_answering.lines import question_line

SOUND, STRANGE = "the nice puppet", "the \u2603"


@pytest.fixture(params=["each text alone", "all texts together"])
def damaged(tmp_path: Path, request: Any) -> Tokenizer:
    """One whose unknown token is not in its vocabulary: it raises where a text has a new word."""
    write_vocabulary(tmp_path, "bert")
    files = read_tokenizer(tmp_path, "bert", 64)
    described = json.loads(files["tokenizer.json"])
    described["model"]["unk_token"] = "[NOPE]"
    tokenizer = Tokenizer.from_bytes(json.dumps(described).encode(), files["tokenizer_config.json"])
    tokenizer.few_texts = 1_000 if request.param == "each text alone" else 0
    return tokenizer


def test_a_text_that_cannot_be_encoded_is_named(damaged: Tokenizer) -> None:
    assert len(damaged.encode([SOUND, SOUND, "a"])) == 3
    with pytest.raises(InputError, match="tokenizer cannot encode 'the \u2603': .*UNK") as caught:
        damaged.encode([SOUND, STRANGE, "a"])
    assert caught.value.hint is not None and "fetch them again" in caught.value.hint


def test_a_failure_that_no_single_text_repeats_is_an_error_too(damaged: Tokenizer) -> None:
    class Moody:
        def encode(self, text: str, add_special_tokens: bool) -> str:
            return text

        def encode_batch(self, texts: Any, add_special_tokens: bool) -> None:
            raise Exception("no threads")

    damaged.backend, damaged.few_texts = Moody(), 0
    with pytest.raises(InputError, match="cannot encode one of 2 texts: no threads"):
        damaged.encode(["a", "b"])


def test_a_line_that_cannot_be_encoded_is_skipped_alone(damaged: Tokenizer) -> None:
    lines = [question_line("the", context) + "\n" for context in (SOUND, STRANGE, SOUND)]
    options = options_of(option_kinds(question_answering), {})
    entries = list(json_entries(enumerate(lines, start=1)))
    prepared, skipped = prepare_lines(question_answering, damaged, entries, *options, on_error="skip")
    assert [line.line.line_number for line in prepared] == [1, 3]
    assert [line.line_number for line in skipped] == [2] and "cannot encode" in skipped[0].reason
    with pytest.raises(InputError, match="^line 2: .*cannot encode"):
        prepare_lines(question_answering, damaged, entries, *options)


def test_what_is_read_once_is_not_read_again(damaged: Tokenizer, tmp_path: Path) -> None:
    asked: List[int] = []

    @once_per_tokenizer
    def number(tokenizer: Tokenizer) -> int:
        asked.append(tokenizer.pad_id)
        return len(asked)

    files = read_tokenizer(tmp_path, "bert", 64)
    other = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"])
    assert [number(each) for each in (damaged, damaged, other, damaged, other)] == [1, 1, 2, 1, 2] and len(asked) == 2


def test_what_was_read_goes_with_its_tokenizer(damaged: Tokenizer) -> None:
    class Read:
        pass

    read = once_per_tokenizer(lambda tokenizer: Read())
    copied = copy.copy(damaged)
    kept, gone = weakref.ref(read(damaged)), weakref.ref(read(copied))
    del copied
    gc.collect()
    assert gone() is None and kept() is read(damaged)


LONG = [
    f"{word} nice puppet maker of number {number}, \ud800 \u200b Zu\u0308rich {word} " * 9
    for number, word in enumerate(("the", "strange", "\u5317\u4eac", "caf\u00e9"))
]


def same_tokens(found: Any, encoding: Any) -> bool:
    return (
        found.ids.tobytes() == np.array(encoding.ids, np.int64).tobytes()
        and found.encoding.offsets == encoding.offsets
        and found.encoding.word_ids == encoding.word_ids
        and found.encoding.tokens == encoding.tokens
    )


@given(
    st.lists(st.lists(st.one_of(st.sampled_from(LONG), st.text(max_size=12)), max_size=5), max_size=8),
    st.sampled_from([0, 60_000, 1 << 20]),
)
def test_documents_are_encoded_as_any_text_whatever_is_kept_of_them(calls: List[List[str]], max_bytes: int) -> None:
    tokenizer = Tokenizer.from_files(DEMO)
    tokenizer.recent = RecentTexts(max_bytes)
    for texts in calls:
        found = tokenizer.encode_documents(texts)
        assert set(found) == set(texts)
        assert all(same_tokens(found[text], encoding) for text, encoding in zip(texts, tokenizer.encode(texts)))
        assert tokenizer.recent.size_bytes <= max_bytes


@pytest.mark.parametrize("max_bytes", [60_000, 1 << 20], ids=["some are pushed out", "all are kept"])
def test_documents_are_encoded_alike_from_many_threads(max_bytes: int) -> None:
    tokenizer = Tokenizer.from_files(DEMO)
    tokenizer.recent = RecentTexts(max_bytes)
    expected = dict(zip(LONG, tokenizer.encode(LONG)))

    def ask(number: int) -> bool:
        texts = [LONG[(number + step) % len(LONG)] for step in range(1 + number % 3)]
        return all(same_tokens(found, expected[text]) for text, found in tokenizer.encode_documents(texts).items())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


def test_a_long_text_is_encoded_once_over_many_calls_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(LONG[0]) >= MIN_CHARACTERS
    tokenizer = Tokenizer.from_files(DEMO)
    asked: List[str] = []
    encode = Tokenizer.encode

    def counted(self: Tokenizer, texts: Sequence[str]) -> Any:
        asked.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    shared = copy.copy(tokenizer)
    first = tokenizer.encode_documents(["Who?", LONG[0], LONG[0]])
    again = shared.encode_documents(["Where?", LONG[0]])
    assert asked == ["Who?", LONG[0], "Where?"]
    assert again[LONG[0]] is first[LONG[0]]
    with pytest.raises(ValueError, match="read-only"):
        again[LONG[0]].ids[0] = 7


def test_a_text_that_cannot_be_encoded_is_not_kept(damaged: Tokenizer) -> None:
    document = " ".join([STRANGE] * MIN_CHARACTERS)
    for _ in range(2):
        with pytest.raises(InputError, match="tokenizer cannot encode"):
            damaged.encode_documents([SOUND, document])
    assert damaged.recent.size_bytes == 0


@pytest.mark.parametrize(
    "config, positions",
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, 64),
        ({"model_type": "bert"}, 512),  # as transformers reads it
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ({"model_type": "unknown", "max_position_embeddings": 64}, 64),
        ({"model_type": "unknown"}, None),
        ({"model_type": ["bert"]}, None),
        ({}, None),
    ],
)
def test_positions_that_a_config_leaves_out_are_its_family_s(config: Any, positions: Any, tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    files = read_tokenizer(tmp_path, "bert", 64)
    made = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], config)
    assert made.max_positions == positions
