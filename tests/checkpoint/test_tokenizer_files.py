"""A tokenizer built from a vocabulary tokenises like the original; damaged files are named."""

import json
from pathlib import Path
from typing import Any, Dict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import write_vocabulary
from tokenizers import Tokenizer

from neuronbert.checkpoint.tokenizer_files import read_tokenizer, uses_token_types
from neuronbert.errors import CheckpointError

TEXTS = [
    ("Who was Jim Henson?", "The nice puppet was Jim's."),
    ("THE puppet é É e\u0301 中文", "ing [MASK] [SEP] the<mask> </s>"),
    ("a\tb\r\nc\u00a0d\u200bz", "\x00\ufffd🎉 the"),
    ("", " "),
]


def original(folder: Path, model_type: str) -> Any:
    """transformers' own fast tokenizer of the same files."""
    import transformers

    name = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta", "electra": "Electra"}[model_type]
    kind = getattr(transformers, name + "TokenizerFast")
    return kind.from_pretrained(str(folder)).backend_tokenizer


def rebuilt(folder: Path, model_type: str, positions: int = 64) -> Tokenizer:
    return Tokenizer.from_str(read_tokenizer(folder, model_type, positions)["tokenizer.json"].decode())


def same(ours: Tokenizer, theirs: Tokenizer, first: str, second: str) -> None:
    found, expected = ours.encode(first, second), theirs.encode(first, second)
    assert found.tokens == expected.tokens
    assert found.ids == expected.ids
    assert found.type_ids == expected.type_ids
    assert found.offsets == expected.offsets


BERT_SETTINGS: Any = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
]


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra"])
@pytest.mark.parametrize("options", BERT_SETTINGS, ids=str)
def test_wordpiece_from_its_vocabulary(tmp_path: Path, model_type: str, options: Dict[str, Any]) -> None:
    write_vocabulary(tmp_path, model_type, **options)
    ours, theirs = rebuilt(tmp_path, model_type), original(tmp_path, model_type)
    for first, second in TEXTS:
        same(ours, theirs, first, second)
    assert ours.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("options", [{}, {"add_prefix_space": True}], ids=str)
def test_byte_level_from_vocabulary_and_merges(tmp_path: Path, options: Dict[str, Any]) -> None:
    write_vocabulary(tmp_path, "roberta", **options)
    ours, theirs = rebuilt(tmp_path, "roberta"), original(tmp_path, "roberta")
    for first, second in TEXTS:
        same(ours, theirs, first, second)
    assert ours.get_vocab() == theirs.get_vocab()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = []
    for model_type in ("bert", "roberta"):
        folder = tmp_path_factory.mktemp(model_type)
        write_vocabulary(folder, model_type)
        found.append((rebuilt(folder, model_type), original(folder, model_type)))
    return found


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.text(max_size=30), second=st.text(max_size=30))
def test_any_text(pairs: Any, first: str, second: str) -> None:
    for ours, theirs in pairs:
        same(ours, theirs, first, second)


def test_tokens_added_after_training(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    size = rebuilt(tmp_path, "bert").get_vocab_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"zyx": size + 1, "xyz": size}))
    tokenizer = rebuilt(tmp_path, "bert")
    assert (tokenizer.token_to_id("xyz"), tokenizer.token_to_id("zyx")) == (size, size + 1)
    (tmp_path / "added_tokens.json").unlink()
    write_vocabulary(tmp_path, "bert", added_tokens_decoder={str(size): {"content": "xyz"}})
    assert rebuilt(tmp_path, "bert").token_to_id("xyz") == size


def test_windows_line_ends_are_not_part_of_a_token(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    plain = rebuilt(tmp_path, "bert").get_vocab()
    path = tmp_path / "vocab.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert rebuilt(tmp_path, "bert").get_vocab() == plain


def test_tokenizer_json_is_taken_as_it_is(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    saved = read_tokenizer(tmp_path, "bert", 64)["tokenizer.json"] + b"\n"
    (tmp_path / "tokenizer.json").write_bytes(saved)
    assert read_tokenizer(tmp_path, "bert", 64)["tokenizer.json"] == saved


def test_tokenizer_config_overrules_the_normaliser(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert", do_lower_case=True)
    (tmp_path / "tokenizer.json").write_bytes(read_tokenizer(tmp_path, "bert", 64)["tokenizer.json"])
    assert rebuilt(tmp_path, "bert").encode("The").tokens[1] == "the"
    write_vocabulary(tmp_path, "bert", do_lower_case=False)
    assert rebuilt(tmp_path, "bert").encode("The").tokens[1] == "The"


@pytest.mark.parametrize(
    "given_length, positions, expected",
    [
        (None, 512, 512),
        (int(1e30), 512, 512),
        (1e30, 512, 512),
        (128, 512, 128),
        (1024, 512, 512),
        (0, 64, 64),
        (True, 64, 64),
    ],
)
def test_model_max_length_is_sane(tmp_path: Path, given_length: Any, positions: int, expected: int) -> None:
    write_vocabulary(tmp_path, "bert", model_max_length=given_length)
    files = read_tokenizer(tmp_path, "bert", positions)
    assert json.loads(files["tokenizer_config.json"])["model_max_length"] == expected


def test_without_tokenizer_config(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "special_tokens_map.json").write_text('{"sep_token": "[SEP]"}')
    files = read_tokenizer(tmp_path, "bert", 64)
    described = json.loads(files["tokenizer_config.json"])
    assert (described["cls_token"], described["pad_token"], described["model_max_length"]) == ("[CLS]", "[PAD]", 64)
    assert set(files) == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}


@pytest.mark.parametrize(
    "described, expected",
    [
        ({"tokenizer_class": "BertTokenizer"}, True),
        ({}, True),
        ({"tokenizer_class": "DistilBertTokenizer"}, False),
        ({"tokenizer_class": "RobertaTokenizerFast"}, False),
        ({"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids"]}, False),
    ],
)
def test_who_uses_token_types(described: Dict[str, Any], expected: bool) -> None:
    assert uses_token_types({"tokenizer_config.json": json.dumps(described).encode()}) == expected


def refused(folder: Path, model_type: str = "bert") -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_tokenizer(folder, model_type, 64)
    assert caught.value.hint
    return caught.value


def test_no_tokenizer(tmp_path: Path) -> None:
    assert refused(tmp_path).message == f"{tmp_path} has no tokenizer: neither tokenizer.json nor vocab.txt"
    assert "neither tokenizer.json nor vocab.json and merges.txt" in refused(tmp_path, "roberta").message


@pytest.mark.parametrize(
    "content, said",
    [
        (b"{", "tokenizer.json is not valid JSON"),
        (b"\xff", "tokenizer.json is not valid JSON"),
        (b"[]", "tokenizer.json holds a list, not a JSON object"),
        (b"{}", "tokenizer.json cannot be read by tokenizers"),
    ],
)
def test_damaged_tokenizer_json(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert said in refused(tmp_path).message


def test_damaged_vocabularies(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    (tmp_path / "vocab.txt").write_text("the\n")
    assert "vocab.txt has no unk_token '[UNK]'" in refused(tmp_path).message
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\n")
    assert "vocab.txt is not UTF-8 text" in refused(tmp_path).message
    write_vocabulary(tmp_path, "roberta")
    (tmp_path / "merges.txt").write_text("#version: 0.2\none two three\n")
    assert "merges.txt line 2 is not a pair of tokens: 'one two three'" in refused(tmp_path, "roberta").message
    (tmp_path / "tokenizer_config.json").write_text("nonsense")
    assert "tokenizer_config.json is not valid JSON" in refused(tmp_path, "roberta").message
