"""Folders of sentence-transformers, of old and new releases, and all that is wrong with others."""

import json
import os
from pathlib import Path
from typing import Any, Dict

import pytest
from tiny_encoders import PREFIX, PROMPTS, WIDTH, modules_of, write_dense, write_json

from neuronbert.checkpoint.families import Config
from neuronbert.errors import CheckpointError, UsageError
from neuronbert.tasks.feature_extraction import modules
from neuronbert.tasks.feature_extraction.folder import encoder_folder, read_modules
from neuronbert.tasks.feature_extraction.modules import NORMALIZE, Dense, SentenceModules

CONFIG: Config = {"hidden_size": WIDTH}


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """What lies beside an encoder: mean pooling and length 1."""
    write_json(tmp_path / "modules.json", modules_of("Pooling", "Normalize"))
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    return tmp_path


def read(folder: Any, pooling: Any = None, allow_pickle: bool = False) -> SentenceModules:
    config, _ = read_modules(folder, CONFIG, pooling, allow_pickle)
    return modules.modules_of(config)


def pooled(folder: Path, **settings: Any) -> SentenceModules:
    write_json(folder / "1_Pooling" / "config.json", settings)
    return read(folder)


# ---- what is served


def test_a_plain_encoder_and_one_in_memory_have_their_tokens_mean(tmp_path: Path) -> None:
    assert read(tmp_path) == read(None) == SentenceModules()
    assert read(tmp_path, "cls").pooling == ("cls",)
    assert read(None, "none").pooling == ()


def test_a_folder_of_every_kind_of_file(folder: Path) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Dense", "Normalize"))
    write_dense(folder / "2_Dense", WIDTH, 5, activation_function="torch.nn.modules.linear.Identity")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": True})
    settings = {"prompts": PROMPTS, "default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 3}
    write_json(folder / "config_sentence_transformers.json", settings)
    dense = Dense("2_Dense", WIDTH, 5, True, "identity", False)
    expected = SentenceModules(("mean",), True, (dense, NORMALIZE), 24, True, PROMPTS, "query", "dot", 3)
    assert read(folder) == expected
    config, weights = read_modules(folder, CONFIG, None, False)
    assert {name: tensor.shape for name, tensor in weights.items()} == dense.shapes
    assert json.loads(json.dumps(config)) == config  # an artifact holds it


def test_no_pooling_needs_no_dense_weights(folder: Path) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Dense"))
    write_dense(folder / "2_Dense", WIDTH, 5)
    assert read_modules(folder, CONFIG, "none", False)[1] == {}


@pytest.mark.parametrize(
    "prefix", [PREFIX, "sentence_transformers.sentence_transformer.modules.", "sentence_transformers.base.modules."]
)
def test_the_classes_of_every_release(folder: Path, prefix: str) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Normalize", prefix=prefix))
    assert read(folder).normalizes


def test_an_encoder_in_a_folder_of_its_own(folder: Path) -> None:
    entries = modules_of("Pooling")
    entries[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", entries)
    write_json(folder / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 9})
    assert encoder_folder(folder) == folder / "0_Transformer"
    assert read(folder).max_seq_length == 9


@pytest.mark.parametrize(
    "document",
    [[{"path": "", "type": "open_clip.Vision"}], [{"path": "a/b", "type": "x"}], {}, modules_of("Pooling")[1:]],
)
def test_the_encoder_beside_modules_of_another_library_is_in_the_folder_itself(folder: Path, document: Any) -> None:
    write_json(folder / "modules.json", document)
    with pytest.raises(CheckpointError, match="modules.json"):
        encoder_folder(folder)  # without a config.json, that is what is wrong
    write_json(folder / "config.json", CONFIG)
    assert encoder_folder(folder) == folder
    with pytest.raises(CheckpointError, match="modules.json"):
        read(folder)


def test_a_transformer_alone_gives_its_tokens(folder: Path) -> None:
    write_json(folder / "modules.json", modules_of())
    assert read(folder).pooling == ()


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        (
            {"pooling_mode_lasttoken": True, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": True},
            ("cls", "max", "lasttoken"),
        ),
        (
            {"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_weightedmean_tokens": True},
            ("mean_sqrt_len", "weightedmean"),
        ),
        ({}, ("mean",)),
        ({"pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode": "mean_sqrt_len_tokens", "embedding_dimension": WIDTH}, ("mean_sqrt_len",)),
    ],
)
def test_poolings_as_old_and_new_releases_write_them(folder: Path, settings: Dict[str, Any], pooling: Any) -> None:
    assert pooled(folder, **settings) == SentenceModules(pooling, layers=(NORMALIZE,))


def test_a_prompt_that_does_not_count(folder: Path) -> None:
    assert pooled(folder, pooling_mode="mean", include_prompt=False).pools_on_host


def test_empty_prompts_and_a_similarity_for_other_models(folder: Path) -> None:
    own = {"prompts": {"query": None}, "similarity_fn_name": "maxsim"}
    write_json(folder / "config_sentence_transformers.json", own)
    assert (read(folder).prompts, read(folder).similarity) == ({"query": ""}, "cosine")


@pytest.mark.parametrize(
    ("settings", "layer"),
    [
        ({}, Dense("2_Dense", WIDTH, 4, True, "tanh", False)),  # sentence-transformers' defaults
        ({"activation_function": None}, Dense("2_Dense", WIDTH, 4, True, "identity", False)),
        (
            {"activation_function": "torch.nn.modules.activation.GELU", "bias": False, "use_residual": True},
            Dense("2_Dense", WIDTH, 4, False, "gelu", True),
        ),
    ],
)
def test_dense_layers(folder: Path, settings: Dict[str, Any], layer: Dense) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Dense"))
    write_dense(folder / "2_Dense", WIDTH, 4, **settings)
    assert read(folder).layers == (layer,)


# ---- what is refused


@pytest.mark.parametrize("kind", ["CNN", "LSTM", "WeightedLayerPooling", "SpladePooling"])
def test_an_unknown_module_is_named(folder: Path, kind: str) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", kind))
    with pytest.raises(CheckpointError, match=f"a module of type '{PREFIX}{kind}' is not served") as caught:
        read(folder)
    assert caught.value.hint is not None and "--pooling none" in caught.value.hint
    assert read(folder, "none") == SentenceModules(pooling=())


def test_a_class_of_somebody_else_is_none_of_ours(folder: Path) -> None:
    entries = modules_of("Pooling")
    entries[0]["type"] = "custom_code.Transformer"
    write_json(folder / "modules.json", entries)
    for pooling in (None, "none"):
        with pytest.raises(CheckpointError, match="'custom_code.Transformer' is not served") as caught:
            read(folder, pooling)
        assert caught.value.hint == "a checkpoint of Transformer, Pooling, Dense, Normalize modules"


@pytest.mark.parametrize("kinds", [["Pooling", "Pooling"], ["Normalize"], ["Dense", "Pooling"]])
def test_modules_in_another_order(folder: Path, kinds: Any) -> None:
    write_json(folder / "modules.json", modules_of(*kinds))
    with pytest.raises(CheckpointError, match="a Transformer with a Pooling behind it is served") as caught:
        read(folder)
    assert caught.value.hint is not None and caught.value.hint.startswith("--pooling none, ")
    assert read(folder, "none") == SentenceModules(pooling=())


def test_no_encoder_first(folder: Path) -> None:
    write_json(folder / "modules.json", modules_of("Pooling")[1:])
    for pooling in (None, "none"):
        with pytest.raises(CheckpointError, match="the modules Pooling; a Transformer with") as caught:
            read(folder, pooling)
        assert caught.value.hint == "a checkpoint whose first module is a Transformer"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"modules": []}, "not a JSON list"),
        ([], "the modules are none"),
        ([{"type": PREFIX + "Transformer"}], "lacks path"),
        ([{"type": PREFIX + "Transformer", "path": "../.."}], "of the form"),
        ([{"type": PREFIX + "Transformer", "path": "/etc"}], "of the form"),
        ([5], "must be an object"),
        (modules_of(*["Normalize"] * 40), "at most 32 items"),
    ],
)
def test_a_modules_file_that_is_none(folder: Path, document: Any, said: str) -> None:
    write_json(folder / "modules.json", document)
    with pytest.raises(CheckpointError, match=said):
        read(folder)


def test_a_modules_file_that_is_no_json(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"path": ""')
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(folder)


def test_a_modules_file_that_is_no_file(folder: Path) -> None:
    (folder / "modules.json").unlink()
    os.mkfifo(folder / "modules.json")
    with pytest.raises(CheckpointError, match="a named pipe, not a file"):
        read(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pooling_mode": "attention"}, "the pooling 'attention' is not served"),
        ({"pooling_mode_attention": True}, "the pooling 'pooling_mode_attention' is not served"),
        ({"pooling_mode": []}, "is not served"),
        ({"pooling_mode_mean_tokens": "yes"}, "pooling_mode_mean_tokens"),
        ({"include_prompt": 1}, "include_prompt"),
    ],
)
def test_poolings_that_are_none(folder: Path, settings: Dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        pooled(folder, **settings)


@pytest.mark.parametrize("settings", [{"pooling_mode": "attention"}, {"pooling_mode": []}])
def test_another_pooling_than_one_that_is_not_served(folder: Path, settings: Dict[str, Any]) -> None:
    for auto in (None, "auto"):
        write_json(folder / "1_Pooling" / "config.json", {**settings, "include_prompt": False})
        with pytest.raises(CheckpointError, match="is not served") as caught:
            read(folder, auto)
    assert caught.value.hint is not None and caught.value.hint.startswith("--pooling with one of ")
    named = caught.value.hint[len("--pooling with one of ") :].split(", ")
    assert [read(folder, name).pooling for name in named] == [(name,) for name in modules.POOLINGS]
    assert read(folder, "cls+mean") == SentenceModules(("cls", "mean"), False, (NORMALIZE,))
    assert read(folder, "none").pooling == ()
    with pytest.raises(UsageError, match="there is no pooling 'median'"):
        read(folder, "median")


def test_no_pooling_reads_nothing_behind_the_encoder(folder: Path) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Dense"))
    (folder / "1_Pooling" / "config.json").unlink()
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9})
    assert read(folder, "none") == SentenceModules(pooling=(), max_seq_length=9)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="1_Pooling/config.json is missing"):
        read(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation_function": "os.system"}, "the activation 'os.system' is not served"),
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, "Softmax' is not served"),
        ({"module_input_name": "token_embeddings"}, "over sentence_embedding, token_embeddings is not served"),
        ({"in_features": 31}, "2_Dense reads 31 numbers, and gets 32"),
        ({"out_features": "many"}, "out_features"),
    ],
)
def test_dense_layers_that_are_not_served(folder: Path, settings: Dict[str, Any], said: str) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Dense"))
    write_dense(folder / "2_Dense", WIDTH, 4)
    path = folder / "2_Dense" / "config.json"
    write_json(path, {**json.loads(path.read_text()), **settings})
    with pytest.raises(CheckpointError, match=said):
        read(folder)


def test_another_pooling_that_the_dense_layer_cannot_read(folder: Path) -> None:
    write_json(folder / "modules.json", modules_of("Pooling", "Dense"))
    write_dense(folder / "2_Dense", WIDTH, 4)
    assert read(folder, "cls").pooling == ("cls",)
    with pytest.raises(CheckpointError, match="2_Dense reads 32 numbers, and gets 64"):
        read(folder, "cls+mean")
    with pytest.raises(UsageError, match="there is no pooling 'median'"):
        read(folder, "median")


def test_a_pickle_is_read_where_that_is_allowed_only(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    write_json(folder / "modules.json", modules_of("Pooling", "Dense"))
    write_dense(folder / "2_Dense", WIDTH, 4)
    (folder / "2_Dense" / "model.safetensors").unlink()
    state = {"linear.weight": torch.ones(4, WIDTH), "linear.bias": torch.zeros(4)}
    torch.save(state, str(folder / "2_Dense" / "pytorch_model.bin"))
    with pytest.raises(CheckpointError, match="is a pickle"):
        read(folder)


def test_a_default_prompt_that_is_not_there(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": "query"})
    with pytest.raises(CheckpointError, match="the default prompt 'query' is not among prompts"):
        read(folder)


def test_an_encoder_for_something_else(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"transformer_task": "sequence-classification"})
    with pytest.raises(CheckpointError, match="an encoder for 'sequence-classification' gives no embeddings"):
        read(folder)
