"""A tokenizer built from a vocabulary tokenises like the original; damaged files are named."""

import json
from pathlib import Path
from typing import Any, Dict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import write_vocabulary
from tokenizers import Tokenizer

from neuronbert.checkpoint.tokenizer_files import read_tokenizer, tokenizer_errors, uses_token_types
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


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
        (b"{", "tokenizer.json is no JSON that can be read"),
        (b"\xff", "tokenizer.json is no JSON that can be read"),
        (b"[]", "tokenizer.json holds [], not a JSON object"),
        (b'{"normalizer": 5}', "normalizer is 5, and must be an object or null"),
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
    assert "tokenizer_config.json is no JSON" in refused(tmp_path, "roberta").message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer_config.json", {"cls_token": 5}, "cls_token is 5, and must be text or an object or null"),
        ("tokenizer_config.json", {"unk_token": {}}, "unk_token lacks content"),
        ("tokenizer_config.json", {"unk_token": {"content": 5}}, "unk_token.content is 5, and must be text"),
        ("tokenizer_config.json", {"unk_token": None}, "has no unk_token None"),
        ("tokenizer_config.json", {"cls_token": "[CLS]:0 $B"}, "has no cls_token '[CLS]:0 $B'"),
        ("tokenizer_config.json", {"do_lower_case": None}, "do_lower_case is None, and must be true or false"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "model_max_length is 'x', and must be a number"),
        ("tokenizer_config.json", {"model_input_names": 5}, "model_input_names is 5, and must be a list or null"),
        ("tokenizer_config.json", {"padding_side": ["left"]}, "padding_side is ['left'], and must be 'left' or"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "added_tokens_decoder is"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": "a"}}, "added_tokens_decoder.1 is 'a', and must be"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {}}}, "added_tokens_decoder.1 lacks content"),
        ("tokenizer_config.json", {"added_tokens_decoder": []}, "added_tokens_decoder is [], and must be an object"),
        ("special_tokens_map.json", {"sep_token": [1]}, "sep_token is [1], and must be text"),
        ("added_tokens.json", {"new": "1"}, "new is '1', and must be a whole number"),
        ("added_tokens.json", {"new": -1}, "new is -1, and must be at least 0"),
        ("added_tokens.json", {"new": 2**40}, "new is 1099511627776, and must be at most"),
        ("added_tokens.json", ["new"], "holds ['new'], not a JSON object"),
        ("tokenizer_config.json", {"mask_token": "\ud800"}, "half a character"),
    ],
)
def test_tokenizer_files_of_no_tokenizer(tmp_path: Path, name: str, content: Any, said: str) -> None:
    write_vocabulary(tmp_path, "bert")
    (tmp_path / name).write_text(json.dumps(content))
    problem = refused(tmp_path).message
    assert str(tmp_path) in problem and said in problem


def test_a_special_token_that_the_library_cannot_place(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert", cls_token="[CLS] $A")
    with open(tmp_path / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("[CLS] $A\n")
    assert "cannot be read by tokenizers" in refused(tmp_path).message


def test_a_panic_of_the_library_is_an_error_and_an_interrupt_is_none() -> None:
    class PanicException(BaseException):
        pass

    with pytest.raises(CheckpointError, match="x cannot be read by tokenizers .*: overflow"), tokenizer_errors("x"):
        raise PanicException("overflow")
    with pytest.raises(KeyboardInterrupt), tokenizer_errors("x"):
        raise KeyboardInterrupt


def test_a_vocabulary_of_newlines_is_too_large_before_it_is_read(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "bert")
    with open(tmp_path / "vocab.txt", "ab") as file:
        file.truncate(1 << 33)
    assert "vocab.txt has 8,589,934,592 bytes, and more than" in refused(tmp_path).message
