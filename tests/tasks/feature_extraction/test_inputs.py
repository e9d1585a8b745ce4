"""Texts with prompts as rows, what is cut, and long texts as several rows."""

from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import write_vocabulary
from tiny_classifiers import POSITIONS, tokenizer_of

from neuronbert.checkpoint.tokenizer import RowLimit, Tokenizer
from neuronbert.checkpoint.tokenizer_files import read_tokenizer
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.feature_extraction.inputs import Example, encode_examples
from neuronbert.tasks.feature_extraction.modules import KEY, SentenceModules
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions, TextOptions
from neuronbert.tasks.feature_extraction.task import call_arguments, call_input, check_options, full_rows

PROMPTS = {"query": "who was ", "document": ""}
WORDS = ["the", "who", "was", "puppet", "a", "nice", "jim", "henson"]
# Of the tiny vocabulary (tiny_checkpoints.py): CLS and SEP.
CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


def tokenizer_with(folder: Path, **fields: Any) -> Tokenizer:
    modules = SentenceModules(**{"prompts": PROMPTS, **fields})
    return tokenizer_of(folder, hidden_size=32, **{KEY: modules.document()})


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return tokenizer_with(folder)


def rows_of(tokenizer: Tokenizer, text: str, **options: Any) -> List[List[int]]:
    (example,) = encode_examples(tokenizer, [text], TextOptions(**options))
    return [row.input_ids.tolist() for row in example.windows]


def ids_of(tokenizer: Tokenizer, text: str) -> List[int]:
    ids: List[int] = tokenizer.encode([text])[0].ids
    return ids


# ---- one row


def test_a_text_is_one_row(tokenizer: Tokenizer) -> None:
    text = "the nice puppet"
    assert rows_of(tokenizer, text) == [[CLS, *ids_of(tokenizer, text), SEP]]
    assert rows_of(tokenizer, "") == [[CLS, SEP]]


@pytest.mark.parametrize(("options", "prompt"), [
    ({}, ""), ({"prompt_name": "query"}, "who was "), ({"prompt": "a "}, "a "), ({"prompt_name": "document"}, ""),
    ({"prompt": "a ", "prompt_name": "query"}, "a "), ({"prompt": "", "prompt_name": "query"}, ""),
])  # fmt: skip
def test_a_prompt_is_put_before_the_text(tokenizer: Tokenizer, options: Any, prompt: str) -> None:
    assert rows_of(tokenizer, "jim", **options) == rows_of(tokenizer, prompt + "jim")


def test_the_default_prompt_is_put_before_texts_unless_another_is_asked_for(folder: Path) -> None:
    tokenizer = tokenizer_with(folder, default_prompt="query")
    assert rows_of(tokenizer, "jim") == rows_of(tokenizer, "who was jim", prompt="")
    assert rows_of(tokenizer, "jim", prompt_name="document") == rows_of(tokenizer, "jim", prompt="")


def test_a_prompt_that_is_not_there(tokenizer: Tokenizer, folder: Path) -> None:
    with pytest.raises(UsageError, match="the checkpoint has no prompt 'title'") as caught:
        encode_examples(tokenizer, ["jim"], TextOptions(prompt_name="title"))
    assert caught.value.hint == "one of query, document"
    with pytest.raises(UsageError, match="no prompt") as caught:
        check_options(tokenizer_with(folder, prompts={}), TextOptions(prompt_name="query"), EmbeddingOptions())
    assert caught.value.hint is not None and caught.value.hint.startswith("it has none")


def test_the_limit_is_the_checkpoints_the_callers_or_the_models(folder: Path) -> None:
    text = "the " * 100
    assert len(rows_of(tokenizer_with(folder), text)[0]) == POSITIONS
    limited = tokenizer_with(folder, max_seq_length=9)
    assert len(rows_of(limited, text)[0]) == 9
    assert len(rows_of(limited, text, max_length=20)[0]) == 20
    assert len(rows_of(limited, text, max_length=1000)[0]) == POSITIONS


def test_a_cut_text_says_so(folder: Path) -> None:
    tokenizer = tokenizer_with(folder, max_seq_length=5)
    assert [example.truncated for example in encode_examples(tokenizer, ["the " * 3, "the " * 4], TextOptions())] == [
        False, True,
    ]  # fmt: skip


def test_lower_case_where_the_checkpoint_asks_for_it(folder: Path) -> None:
    files = tokenizer_with(folder, lowercase=True)
    assert rows_of(files, "Jim HENSON", prompt="THE ") == rows_of(files, "the jim henson")


@pytest.mark.parametrize("text", [None, 5, b"jim", ["jim"]])
def test_what_is_no_text(tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(InputError, match="the text is of type"):
        encode_examples(tokenizer, ["jim", text], TextOptions())


def test_tokens_of_a_prompt_that_do_not_count(folder: Path) -> None:
    tokenizer = tokenizer_with(folder, include_prompt=False)

    def unpooled(**options: Any) -> int:
        return encode_examples(tokenizer, ["jim"], TextOptions(**options))[0].unpooled_tokens

    assert unpooled() == unpooled(prompt="") == unpooled(prompt_name="document") == 0
    assert unpooled(prompt_name="query") == 1 + len(ids_of(tokenizer, "who was "))  # with CLS
    assert encode_examples(tokenizer_with(folder), ["jim"], TextOptions(prompt="a "))[0].unpooled_tokens == 0


# ---- several rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from(WORDS), max_size=60),
    limit=st.integers(6, 30),
    prompt=st.sampled_from(["", "who was "]),
)
def test_parts_of_a_long_text_have_all_its_tokens_in_order(
    tokenizer: Tokenizer, words: List[str], limit: int, prompt: str
) -> None:
    text = " ".join(words)
    (example,) = encode_examples(tokenizer, [text], TextOptions(limit, "pooled", prompt=prompt))
    before = [CLS, *ids_of(tokenizer, prompt)]
    rows = [row.input_ids.tolist() for row in example.windows]
    assert all(row[: len(before)] == before and row[-1] == SEP and len(row) <= limit for row in rows)
    assert sum((row[len(before) : -1] for row in rows), []) == ids_of(tokenizer, text)
    assert all(len(row) == limit for row in rows[:-1]) and not example.truncated


def test_a_short_text_is_the_same_row_either_way(tokenizer: Tokenizer) -> None:
    assert rows_of(tokenizer, "the nice puppet", long_texts="pooled") == rows_of(tokenizer, "the nice puppet")


def test_a_prompt_that_leaves_no_room_for_parts(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="leaves no room for text behind a prompt of 6 tokens"):
        encode_examples(tokenizer, ["jim"], TextOptions(8, "pooled", prompt="the who was a nice jim "))


def test_a_text_of_too_many_rows(folder: Path) -> None:
    tokenizer = tokenizer_with(folder)
    tokenizer.row_limit = RowLimit(2, "the runner", "a larger limit")
    assert len(rows_of(tokenizer, "the " * 6, max_length=5, long_texts="pooled")) == 2
    with pytest.raises(InputError, match="a text of 7 tokens becomes 3 rows, and the runner takes 2"):
        rows_of(tokenizer, "the " * 7, max_length=5, long_texts="pooled")


def test_tokens_own_embeddings_are_not_pooled(folder: Path) -> None:
    with pytest.raises(UsageError, match="is for one embedding of a text"):
        check_options(tokenizer_with(folder, pooling=()), TextOptions(long_texts="pooled"), EmbeddingOptions())


def byte_level_tokenizer(folder: Path, **fields: Any) -> Tokenizer:
    """RoBERTa's kind, whose tokens begin with the space before a word."""
    write_vocabulary(folder, "roberta")
    files = read_tokenizer(folder, "roberta", POSITIONS)
    config = {"model_type": "roberta", "hidden_size": 32, KEY: SentenceModules(**fields).document()}
    return Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], config)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from([*WORDS, "é", "中", "İ"]), min_size=40, max_size=60),
    limit=st.integers(12, 40),
    prompt=st.sampled_from(["a: ", "a:  ", "a:", "İ: ", "a: the"]),
    lowercase=st.booleans(),
)
def test_no_part_repeats_what_is_behind_a_prompt_that_ends_in_a_space(
    tmp_path: Path, words: List[str], limit: int, prompt: str, lowercase: bool
) -> None:
    """Alone, the prompt has a token for its last space; before a text, that space is part of the first word's."""
    tokenizer = byte_level_tokenizer(tmp_path, lowercase=lowercase)
    text = " ".join(words)
    (example,) = encode_examples(tokenizer, [text], TextOptions(limit, "pooled", prompt=prompt))
    rows = [row.input_ids.tolist()[1:-1] for row in example.windows]
    whole = prompt + text
    encoding = tokenizer.encode([whole.lower() if lowercase else whole])[0]
    ends_at = len(prompt.lower() if lowercase else prompt)
    before = sum(end <= ends_at for _, end in encoding.offsets)
    assert len(rows) > 1 and all(row[:before] == rows[0][:before] for row in rows)
    assert rows[0][:before] + sum((row[before:] for row in rows), []) == encoding.ids


def test_the_space_at_the_end_of_a_prompt_is_the_texts(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer(tmp_path)
    first, second = rows_of(tokenizer, "the the the", long_texts="pooled", prompt="a: ", max_length=6)
    the = tokenizer.backend.token_to_id("Ġthe")
    assert len(ids_of(tokenizer, "a: ")) == 3
    assert (first[3:-1], second[1:3], second[3:-1]) == ([the, the], first[1:3], [the])


def test_a_prompt_that_does_not_count_is_as_long_as_alone(tmp_path: Path) -> None:
    """sentence-transformers' own rule; what it leaves out of the pooling is what every part repeats."""
    tokenizer = byte_level_tokenizer(tmp_path, include_prompt=False)
    options = TextOptions(8, "pooled", prompt="a: ")
    (example,) = encode_examples(tokenizer, ["the " * 9], options)
    assert example.unpooled_tokens == 4
    rows = [row.input_ids.tolist() for row in example.windows]
    ids = ids_of(tokenizer, "a: " + "the " * 9)
    assert ids[:3] + sum((row[4:-1] for row in rows), []) == ids
    cut = encode_examples(tokenizer, ["the"], TextOptions(8, prompt="a " * 20))[0]
    assert cut.unpooled_tokens == 7  # all of the row but the last token, as of any prompt that is cut


# ---- options and calls


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": 0}, "max_length must be"),
        ({"max_length": 2.5}, "max_length must be"),
        ({"long_texts": "split"}, "long_texts is 'split'"),
        ({"prompt": 5}, "prompt must be text"),
        ({"prompt_name": ["query"]}, "prompt_name must be text"),
    ],
)
def test_options_for_rows_that_are_none(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TextOptions(**options)


@pytest.mark.parametrize(
    ("options", "said"), [({"truncate_dim": 0}, "truncate_dim must be"), ({"normalize": "yes"}, "normalize must be")]
)
def test_options_for_embeddings_that_are_none(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        EmbeddingOptions(**options)


def test_a_call_has_one_text() -> None:
    assert call_input("jim", normalize=True) == ("jim", {"normalize": True})
    assert call_arguments("jim") == ("jim",)


def test_full_rows_are_full(tokenizer: Tokenizer) -> None:
    rows = full_rows(tokenizer, ["the nice puppet was jim henson"] * 9, 12, 3)
    assert [len(row.input_ids) for row in rows] == [12] * 3
    with pytest.raises(InputError, match="no row of 12 tokens"):
        full_rows(tokenizer, ["jim"], 12, 3)


def test_examples_are_told_apart_by_nothing_but_rows(tokenizer: Tokenizer) -> None:
    """The bulk path: one tuple a text, the modules shared."""
    first, second = encode_examples(tokenizer, ["jim", "the"], TextOptions())
    assert isinstance(first, Example) and first.modules is second.modules
