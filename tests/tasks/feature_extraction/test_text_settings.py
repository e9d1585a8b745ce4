"""What sentence_bert_config.json hands to transformers: what is served, passed over, and refused by name."""

import re
from pathlib import Path
from typing import Any, Dict

import pytest
from tiny_checkpoints import write_vocabulary
from tiny_encoders import write_json

from neuronbert.errors import CheckpointError
from neuronbert.tasks.feature_extraction.text_settings import TextSettings, read_text_settings

NAME = "sentence_bert_config.json"


def read(folder: Path, found: Dict[str, Any], **config: Any) -> TextSettings:
    write_json(folder / NAME, found)
    return read_text_settings(folder, {"model_type": "bert", **config})


def refused(folder: Path, found: Dict[str, Any], **config: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read(folder, found, **config)
    return caught.value


def test_no_file_and_the_files_of_other_encoders(tmp_path: Path) -> None:
    assert read_text_settings(tmp_path, {}) == TextSettings(None, False)
    write_json(tmp_path / "sentence_distilbert_config.json", {"max_seq_length": 7})
    write_json(tmp_path / "sentence_roberta_config.json", {"max_seq_length": 8, "do_lower_case": True})
    assert read_text_settings(tmp_path, {}) == TextSettings(8, True)


@pytest.mark.parametrize("group", ["tokenizer_args", "processor_kwargs"])
def test_the_tokenizers_limit_wins(tmp_path: Path, group: str) -> None:
    assert read(tmp_path, {"max_seq_length": 64, group: {"model_max_length": 32}}).max_seq_length == 32
    assert read(tmp_path, {"max_seq_length": 32, group: {"model_max_length": 64}}).max_seq_length == 64
    assert read(tmp_path, {"max_seq_length": 32, group: {"model_max_length": None}}).max_seq_length == 32
    # transformers' own "no limit": the model's positions are one
    assert read(tmp_path, {group: {"model_max_length": int(1e30)}}).max_seq_length == 1 << 20


def test_the_old_name_wins(tmp_path: Path) -> None:
    both = {"tokenizer_args": {"model_max_length": 16}, "processor_kwargs": {"model_max_length": 32}}
    assert read(tmp_path, both).max_seq_length == 16
    assert read(tmp_path, {**both, "tokenizer_args": {}, "max_seq_length": 9}).max_seq_length == 9


@pytest.mark.parametrize(
    "found",
    [
        {"model_args": {}, "tokenizer_args": None, "config_args": {}, "query_length": None},
        {"tokenizer_args": {"use_fast": True, "trust_remote_code": True, "revision": "v1", "cache_dir": "/x"}},
        {"model_args": {"torch_dtype": "float16", "attn_implementation": "sdpa", "add_pooling_layer": False}},
        {"model_kwargs": {"device_map": "auto", "dtype": "bfloat16"}, "config_kwargs": {"hidden_size": 32}},
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
            "unpad_inputs": True,
            "processing_kwargs": {"text": {}, "chat_template": {"add_generation_prompt": True}},
        },
    ],
)
def test_what_changes_no_embedding_is_passed_over(tmp_path: Path, found: Dict[str, Any]) -> None:
    assert read(tmp_path, {"max_seq_length": 24, **found}, hidden_size=32) == TextSettings(24, False)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"tokenizer_args": {"do_lower_case": False}}, "tokenizer_args, do_lower_case is False"),
        ({"processor_kwargs": {"padding_side": "left"}}, "processor_kwargs, padding_side is 'left'"),
        ({"model_args": {"quantization_config": {"bits": 4}}}, "model_args, quantization_config is {'bits': 4}"),
        ({"model_kwargs": {"variant": "fp16"}}, "model_kwargs, variant is 'fp16'"),
        ({"config_kwargs": {"hidden_size": 16}}, "config_kwargs, hidden_size is 16"),
        ({"query_length": 8}, "query_length is 8"),
        ({"tokenizer_name_or_path": "owner/other"}, "tokenizer_name_or_path is 'owner/other'"),
        ({"processing_kwargs": {"text": {"max_length": 9}}}, "processing_kwargs, text is {'max_length': 9}"),
        ({"modality_config": {"image": {}}}, "modality_config, text is None"),
        ({"module_output_name": "scores"}, "module_output_name is 'scores'"),
    ],
)
def test_what_would_change_embeddings_is_refused_by_name(tmp_path: Path, found: Dict[str, Any], said: str) -> None:
    error = refused(tmp_path, found, hidden_size=32)
    assert error.message == f"{tmp_path / NAME}: {said}, which is not served"
    assert error.hint


@pytest.mark.parametrize(
    "found",
    [
        {"tokenizer_args": {"model_max_length": "many"}},
        {"processor_kwargs": {"model_max_length": 0}},
        {"tokenizer_args": [5]},
        {"processing_kwargs": {"text": 5}},
        {"modality_config": []},
    ],
)
def test_files_that_are_damaged(tmp_path: Path, found: Dict[str, Any]) -> None:
    assert "must be" in refused(tmp_path, found).message


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("own", [None, False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_lower_case_of_the_tokenizer_is_refused_where_transformers_applies_it(
    tmp_path: Path, kind: str, own: Any, asked: bool
) -> None:
    """It replaces the tokenizer's own, takes accents off as well, and is nothing to a byte-level tokenizer."""
    transformers = pytest.importorskip("transformers")
    write_vocabulary(tmp_path, kind, **({} if own is None else {"do_lower_case": own}))
    write_json(tmp_path / "config.json", {"model_type": kind})
    text = "The jim É"
    plain, changed = (
        transformers.AutoTokenizer.from_pretrained(str(tmp_path), **keywords)(text)["input_ids"]
        for keywords in ({}, {"do_lower_case": asked})
    )
    found = {"tokenizer_args": {"do_lower_case": asked}}
    if plain == changed:
        assert read(tmp_path, found, model_type=kind) == TextSettings()
        return
    hint = refused(tmp_path, found, model_type=kind).hint
    save = re.search(r"(AutoTokenizer\.from_pretrained\(FOLDER, .*\))\.save_pretrained\(FOLDER\)", str(hint))
    assert save is not None
    names = {"AutoTokenizer": transformers.AutoTokenizer, "FOLDER": str(tmp_path)}
    eval(save.group(0), names)  # as the hint says
    assert read(tmp_path, found, model_type=kind) == TextSettings()
