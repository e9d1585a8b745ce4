"""A checkpoint is read and checked as a whole; every way it can be wrong has a message and a way out."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest
from neuronbert_demo import FOLDER
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import FAMILIES, tiny_model, write_checkpoint, write_vocabulary

from neuronbert.checkpoint.loading import Checkpoint
from neuronbert.errors import CheckpointError, MissingLibrary, UsageError
from neuronbert.hardware import libraries
from neuronbert.tasks.checkpoints import load_checkpoint

# What the figures in the documents, the golden answers and the recorded compilations were measured with.
DEMO_DIGESTS = {
    "config.json": "4b9ab5153532bf2cb82235edd4e5d9e271258d0a43c98d0eac2b595ca2815ca5",
    "model.safetensors": "2e91b3da9c31aff17f0675c1c8f4ac4beac26d6f26c2b448ca79051da42d576a",
    "tokenizer.json": "325e6539e09081160e94f36b13f0869734587b16be2add1a6848ba7eb4c10c38",
    "tokenizer_config.json": "c83e8289b1f2e52258b298baecc415f89a33c0b114e19c3a862564b989007527",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """One checkpoint folder of every family."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: write_checkpoint(root / kind, kind) for kind in FAMILIES}


@pytest.fixture()
def bert(saved: Dict[str, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved["bert"], tmp_path / "bert"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def edit_weights(folder: Path, change: Callable[[Dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refused(source: Any, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(source, **options)
    assert caught.value.hint
    return caught.value


def test_reading_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, neuronbert.tasks.checkpoints as c; d = c.load_checkpoint('demo'); d.tokenizer_files();"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_demo() -> None:
    demo = load_checkpoint("demo")
    assert (demo.source, demo.revision, demo.model_type) == ("demo", None, "bert")
    assert demo.architecture == "BertForQuestionAnswering"
    # 6 layers of 384 features: 4 squares, 2 wide matrices, their biases, 2 norms.
    assert demo.encoder_parameters == 6 * (4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384)
    assert demo.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(demo.tokenizer_files())


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_reads_like_transformers(saved: Dict[str, Path], kind: str) -> None:
    found = load_checkpoint(saved[kind])
    model = tiny_model(kind)
    assert (found.model_type, found.architecture) == (kind, type(model).__name__)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    layers = [p.numel() for name, p in model.named_parameters() if ".layer." in name]
    assert found.encoder_parameters == sum(layers)
    expects_types = kind in ("bert", "electra")
    assert ("token_type_ids" in found.input_names) == expects_types
    assert found.input_names[:2] == ("input_ids", "attention_mask")


def test_a_path_and_its_text_are_the_same_source(saved: Dict[str, Path]) -> None:
    assert load_checkpoint(saved["bert"]) == load_checkpoint(str(saved["bert"]))


@pytest.mark.parametrize("kind", FAMILIES)
def test_in_memory_equals_the_folder(saved: Dict[str, Path], kind: str) -> None:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    pair = (
        AutoModelForQuestionAnswering.from_pretrained(str(saved[kind])),
        AutoTokenizer.from_pretrained(str(saved[kind])),
    )
    folder, memory = load_checkpoint(saved[kind]), load_checkpoint(pair)
    assert memory.source == f"in-memory {folder.architecture}"
    for name in ("fingerprint", "parameters", "encoder_parameters", "model_type", "architecture", "input_names"):
        assert getattr(memory, name) == getattr(folder, name), name
    assert encode(memory, "Who was Jim?", "the nice puppet") == encode(folder, "Who was Jim?", "the nice puppet")


def encode(checkpoint: Checkpoint, *texts: str) -> Any:
    from tokenizers import Tokenizer

    encoding = Tokenizer.from_str(checkpoint.tokenizer_files()["tokenizer.json"].decode()).encode(*texts)
    return encoding.ids, encoding.type_ids, encoding.offsets


def test_an_in_memory_checkpoint_keeps_its_weights_when_training_goes_on(saved: Dict[str, Path]) -> None:
    import torch
    from transformers import AutoTokenizer

    model = tiny_model("bert")
    checkpoint = load_checkpoint((model, AutoTokenizer.from_pretrained(str(saved["bert"]))))
    with torch.no_grad():
        model.qa_outputs.bias += 100.0
    assert float(checkpoint.torch_model().model.qa_outputs.bias.detach().max()) < 10


def test_fingerprint_tells_one_bit_and_ignores_the_files(saved: Dict[str, Path], bert: Path) -> None:
    original = load_checkpoint(saved["bert"])

    def flip(tensors: Dict[str, np.ndarray]) -> None:
        tensors["qa_outputs.bias"].view(np.uint8)[0] ^= 1

    edit_weights(bert, flip)
    assert load_checkpoint(bert).fingerprint != original.fingerprint
    edit_weights(bert, flip)
    assert load_checkpoint(bert).fingerprint == original.fingerprint
    shard(bert)
    assert load_checkpoint(bert).fingerprint == original.fingerprint


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def test_a_missing_shard_is_named(bert: Path) -> None:
    shard(bert)
    (bert / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names" in refused(bert).message


def test_a_shard_outside_the_folder_is_refused(bert: Path) -> None:
    shard(bert)
    index = json.loads((bert / "model.safetensors.index.json").read_text())
    index["weight_map"]["qa_outputs.bias"] = "../model.safetensors"
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map.qa_outputs.bias is '../model.safetensors', and must be" in refused(bert).message


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_weights(tmp_path: Path, dtype: str) -> None:
    import torch

    model = tiny_model("bert").to(getattr(torch, dtype))
    model.save_pretrained(str(tmp_path), safe_serialization=True)
    write_vocabulary(tmp_path, "bert")
    loaded = dict(load_checkpoint(tmp_path).torch_model().model.named_parameters())
    for name, parameter in model.named_parameters():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], parameter.float()), name


def test_legacy_names(saved: Dict[str, Path], bert: Path) -> None:
    """TensorFlow's gamma and beta, no prefix, position numbers and a pooler, as checkpoints of 2019 have them."""

    def age(tensors: Dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old[len("bert.") :] if old.startswith("bert.") else old] = tensors.pop(name)
        tensors["embeddings.position_ids"] = np.arange(64, dtype=np.int64)[None]
        tensors["pooler.dense.weight"] = np.zeros((32, 32), np.float32)
        tensors["pooler.dense.bias"] = np.zeros(32, np.float32)

    edit_weights(bert, age)
    assert "embeddings.LayerNorm.gamma" in load_file(bert / "model.safetensors")
    aged, original = load_checkpoint(bert), load_checkpoint(saved["bert"])
    assert (aged.fingerprint, aged.parameters) == (original.fingerprint, original.parameters)


def test_a_config_without_model_type_is_known_by_its_class(saved: Dict[str, Path], bert: Path) -> None:
    edit_config(bert, model_type=None)
    assert load_checkpoint(bert).model_type == "bert"


def test_no_token_types_where_the_tokenizer_gives_none(bert: Path) -> None:
    write_vocabulary(bert, "bert", model_input_names=["input_ids", "attention_mask"])
    assert load_checkpoint(bert).input_names == ("input_ids", "attention_mask")


# --- what is refused, and how ---


def test_unknown_checkpoint() -> None:
    error = refused("./no/such/folder")
    assert error.message.startswith(
        "there is no checkpoint './no/such/folder': no such folder, and not the form of a hub"
    )
    assert "demo" in str(error.hint)


def test_a_file_instead_of_a_folder(bert: Path) -> None:
    error = refused(bert / "config.json")
    assert "config.json is a file; a checkpoint is a folder" in error.message
    assert str(bert) in str(error.hint)


def test_an_artifact_instead_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "neuronbert.json").write_text("{}")
    assert f"{tmp_path} is a compiled artifact already, not a checkpoint" in refused(tmp_path).message


def test_a_whole_artifact_is_told_from_a_checkpoint(echo_artifact: Any) -> None:
    assert "is a compiled artifact already" in refused(echo_artifact.folder).message


def test_no_config(bert: Path) -> None:
    (bert / "config.json").unlink()
    error = refused(bert)
    assert error.message == f"{bert} has no config.json"
    assert "save_pretrained" in str(error.hint)


@pytest.mark.parametrize("text, said", [("{", "config.json is no JSON"), ("[]", "holds [], not a JSON object")])
def test_broken_config(bert: Path, text: str, said: str) -> None:
    (bert / "config.json").write_text(text)
    assert said in refused(bert).message


def test_binary_config(bert: Path) -> None:
    (bert / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "config.json is no JSON" in refused(bert).message


def test_model_type_not_served(bert: Path) -> None:
    edit_config(bert, model_type="gpt2")
    error = refused(bert)
    assert error.message == f"{bert / 'config.json'}: model type 'gpt2' is not served"
    assert "bert, distilbert, roberta, electra" in str(error.hint)


def test_no_model_type_at_all(bert: Path) -> None:
    edit_config(bert, model_type=None, architectures=None)
    assert 'names neither a "model_type" nor a class in "architectures"' in refused(bert).message


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not served"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"hidden_size": "32"}, "config.json: hidden_size is '32', and must be a whole number"),
        ({"hidden_size": 0}, "hidden_size is 0, and must be at least 1"),
        ({"num_hidden_layers": 3_000_000}, "num_hidden_layers is 3000000, and must be at most 10,000"),
        ({"num_hidden_layers": 9_000}, "num_hidden_layers is 9,000, and"),
        ({"max_position_embeddings": -64}, "max_position_embeddings is -64, and must be at least 1"),
        ({"type_vocab_size": False}, "type_vocab_size is False, and must be a whole number"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps is '1e-12', and must be a number"),
        ({"hidden_dropout_prob": 7}, "hidden_dropout_prob is 7, and must be at most 1"),
        ({"id2label": [1]}, "id2label is [1], and must be an object or null"),
        ({"more": "\ud800"}, "config.json is no JSON that can be read"),
        ({"num_attention_heads": 5}, "hidden size 32 cannot be split over 5 attention heads"),
        ({"num_hidden_layers": 3}, "lacks weights that"),
        ({"num_hidden_layers": 1}, "holds weights that are no part of BertForQuestionAnswering"),
        ({"vocab_size": 17}, "bert.embeddings.word_embeddings.weight is [72, 32], the config asks for [17, 32]"),
    ],
)
def test_config_that_does_not_fit(bert: Path, changes: Dict[str, Any], said: str) -> None:
    edit_config(bert, **changes)
    assert said in refused(bert).message


@pytest.mark.parametrize(
    "head, instead", [("MaskedLM", "a BertForMaskedLM with cls"), ("", "a BertModel without a head")]
)
def test_no_question_answering_head(tmp_path: Path, head: str, instead: str) -> None:
    folder = write_checkpoint(tmp_path / "other", "bert", head=head)
    error = refused(folder, task="question-answering")
    file = folder / "model.safetensors"
    start = f"{file} has no question-answering head (qa_outputs)"
    assert error.message.startswith(start) and error.message.endswith(f": it is {instead}")
    assert f"tools/finetune.py --base {folder}" in str(error.hint)
    assert "BertForQuestionAnswering" in str(error.hint)


@pytest.mark.parametrize("head", ["MaskedLM", "", "NextSentencePrediction"])
def test_an_encoder_without_the_head_of_a_task_gives_embeddings(tmp_path: Path, head: str) -> None:
    found = load_checkpoint(write_checkpoint(tmp_path / "other", "bert", head=head))
    assert (found.head.task, found.architecture, found.pooling) == ("feature-extraction", "BertModel", "mean")
    assert found.parameters == sum(parameter.numel() for parameter in found.torch_model().model.parameters())


def test_a_head_that_the_config_names_and_the_weights_lack_is_missed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "other", "bert", head="")
    edit_config(folder, architectures=["BertForQuestionAnswering"])
    assert "lacks weights of BertForQuestionAnswering, which config.json names" in refused(folder).message
    assert load_checkpoint(folder, task="feature-extraction").pooling == "mean"


def test_a_head_is_no_hindrance_to_embeddings_that_are_asked_for(saved: Dict[str, Path]) -> None:
    assert load_checkpoint(saved["bert"]).pooling is None
    assert load_checkpoint(saved["bert"], task="feature-extraction", pooling="cls").pooling == "cls"


def test_a_pooling_is_for_embeddings(saved: Dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="a pooling is nothing for question-answering"):
        load_checkpoint(saved["bert"], pooling="mean")


def test_weights_missing(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    error = refused(bert)
    assert error.message.startswith(
        f"{bert} has no weights, neither model.safetensors nor pytorch_model.bin; it has config"
    )


def test_a_tensorflow_checkpoint_is_told_how_to_convert(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "tf_model.h5")
    assert "from_tf=True" in str(refused(bert).hint)


def test_truncated_weights(bert: Path) -> None:
    path = bert / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    error = refused(bert)
    assert error.message == f"{path} is truncated: expected {len(whole)} bytes, found {len(whole) - 1000}"
    assert "fetch the checkpoint again" in str(error.hint)
    path.write_bytes(whole[:100])
    assert f"{path} is truncated: its header alone takes" in refused(bert).message
    path.write_bytes(b"")
    assert f"{path} is truncated: it has 0 bytes" in refused(bert).message
    path.write_bytes(whole + b"x")
    assert f"{path} has bytes behind its last tensor: expected {len(whole)} bytes" in refused(bert).message


def test_weights_that_are_something_else(bert: Path) -> None:
    path = bert / "model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    error = refused(bert)
    assert f"{path} is a Git LFS pointer" in error.message
    assert error.hint == f"git -C {bert} lfs pull"
    path.write_bytes(b"\xff" * 64)
    assert f"{path} is no safetensors file" in refused(bert).message
    path.write_bytes((10).to_bytes(8, "little") + b"not json!!" + bytes(10))
    assert f"{path}, its header is no JSON" in refused(bert).message


def tensor(begin: Any, end: Any, shape: Any = (1,), dtype: Any = "F32") -> Dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "size", "said"),
    [
        ({"a": tensor(0, 4, [2])}, 4, "'a' of shape [2] takes 8 bytes, its header says 4"),
        ({"a": tensor(0, 4), "b": tensor(0, 4)}, 4, "'b' lies at bytes 0 to 4 of the data, and the tensor before it"),
        ({"a": tensor(0, 4), "b": tensor(2, 6)}, 6, "'b' lies at bytes 2 to 6 of the data, and the tensor before it"),
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "the tensor before it ends at 4"),
        ({"a": tensor(4, 8)}, 8, "the tensor before it ends at 0"),
        ({"a": tensor(4, 0)}, 4, "'a' lies at bytes 4 to 0 of the data"),
        ({"a": tensor(-4, 0)}, 4, "a.data_offsets[0] is -4, and must be at least 0"),
        ({"a": tensor(0, 10**30)}, 4, "a.data_offsets[1] is 1000000000000"),
        ({"a": tensor(0, 2**50)}, 4, "is truncated: expected 11258"),
        ({"a": tensor(0, 4, [10**30])}, 4, "a.shape[0] is 1000000000000"),
        ({"a": tensor(0, 4, [2**53] * 8)}, 4, "'a' of shape [9007199254740992, "),
        ({"a": tensor(0, 4, [1] * 9)}, 4, "a.shape is [1, 1, 1, 1, 1, 1, ...], and must be of at most 8 items"),
        ({"a": tensor(0, 4, [True])}, 4, "a.shape[0] is True, and must be a whole number"),
        ({"a": tensor(0, 4, "4")}, 4, "a.shape is '4', and must be a list"),
        ({"a": tensor(0, 4, [1], ["F32"])}, 4, "a.dtype is ['F32'], and must be text"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "a lacks data_offsets"),
        ({"a": [1]}, 4, "a is [1], and must be an object"),
        ({"__metadata__": 5}, 0, "__metadata__ is 5, and must be an object or null"),
        ({"a\x1b[2J": 5}, 4, r"a\x1b[2J is 5, and must be an object"),
    ],
)
def test_tensors_that_are_not_where_their_header_says(bert: Path, header: Any, size: int, said: str) -> None:
    raw = json.dumps(header).encode()
    (bert / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
    assert said in refused(bert).message


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"a":' * 100_000])
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", "tokenizer.json",
             "model.safetensors.index.json", "model.safetensors"]
)  # fmt: skip
def test_deep_nesting_is_refused_by_name_wherever_it_is(bert: Path, name: str, nested: bytes) -> None:
    if name.startswith("model"):
        (bert / "model.safetensors").unlink()
    header = len(nested).to_bytes(8, "little") if name == "model.safetensors" else b""
    (bert / name).write_bytes(header + nested)
    problem = refused(bert).message
    assert name in problem and "nested too deeply" in problem


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "tokenizer.json"]
)
def test_a_pipe_in_a_checkpoint_is_refused_and_a_link_to_a_file_is_not(bert: Path, tmp_path: Path, name: str) -> None:
    if (bert / name).exists():
        os.rename(bert / name, tmp_path / "elsewhere")
        (bert / name).symlink_to(tmp_path / "elsewhere")  # as the hub's cache keeps them
        load_checkpoint(bert)
        (bert / name).unlink()
    os.mkfifo(bert / name)
    assert f"{name} is a named pipe, not a file" in refused(bert).message


def test_a_checkpoint_that_may_not_be_read_is_not_missing(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Any, *more: Any, **keywords: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("neuronbert.hardware.untrusted.os.lstat", closed)
    problem = refused(bert)
    assert "cannot be read: Permission denied" in problem.message and "ls -ld" in str(problem.hint)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_not_numbers(bert: Path, value: float, dtype: Any) -> None:
    def spoil(tensors: Dict[str, np.ndarray]) -> None:
        tensors["qa_outputs.bias"] = np.array([0, value], dtype)

    edit_weights(bert, spoil)
    assert "weight qa_outputs.bias holds NaN or Inf" in refused(bert).message


def test_quantised_weights(bert: Path) -> None:
    def quantise(tensors: Dict[str, np.ndarray]) -> None:
        tensors["qa_outputs.weight"] = tensors["qa_outputs.weight"].astype(np.int8)

    edit_weights(bert, quantise)
    error = refused(bert)
    assert "weight qa_outputs.weight is of type I8, not floating point" in error.message


def test_one_weight_under_two_names(bert: Path) -> None:
    def double(tensors: Dict[str, np.ndarray]) -> None:
        tensors["bert.embeddings.LayerNorm.gamma"] = tensors["bert.embeddings.LayerNorm.weight"]

    edit_weights(bert, double)
    assert "holds bert.embeddings.LayerNorm.weight twice" in refused(bert).message


def to_pickle(folder: Path) -> Path:
    import torch
    from safetensors.torch import load_file as load_torch

    torch.save(load_torch(str(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def torch_reads_pickles_safely() -> bool:
    import torch

    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6)


def test_a_pickle_is_refused_and_converted_by_the_command_in_the_hint(saved: Dict[str, Path], bert: Path) -> None:
    path = to_pickle(bert)
    error = refused(bert)
    assert error.message.startswith(f"{path} is a pickle, which can run code when it is read")
    before, command = str(error.hint).split("convert it once: python ")
    assert "--allow-pickle" in before
    if not torch_reads_pickles_safely():
        pytest.skip("the command needs torch >= 2.6")
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True)
    assert load_checkpoint(bert).fingerprint == load_checkpoint(saved["bert"]).fingerprint


def test_an_allowed_pickle_reads_like_safetensors(saved: Dict[str, Path], bert: Path) -> None:
    path = to_pickle(bert)
    if torch_reads_pickles_safely():
        assert load_checkpoint(bert, allow_pickle=True).fingerprint == load_checkpoint(saved["bert"]).fingerprint
    else:
        assert f"{path} is a pickle, and torch " in refused(bert, allow_pickle=True).message


def test_a_pickle_with_code_in_it_does_not_run(bert: Path, tmp_path: Path) -> None:
    import pickle

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "attacked",)

    to_pickle(bert).write_bytes(pickle.dumps({"qa_outputs.weight": Attack()}))
    refused(bert, allow_pickle=True)
    assert not (tmp_path / "attacked").exists()


def test_a_truncated_pickle_is_named(bert: Path) -> None:
    path = to_pickle(bert)
    path.write_bytes(path.read_bytes()[:1000])
    if torch_reads_pickles_safely():
        assert f"{path} (1000 bytes) is not a file of plain weights" in refused(bert, allow_pickle=True).message


def test_objects_that_are_no_checkpoint() -> None:
    error = refused(("model", "tokenizer"))
    assert (
        error.message == "an in-memory checkpoint is a pair of transformers objects (model, tokenizer), not (str, str)"
    )


def test_in_memory_without_a_head(saved: Dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    pair = (tiny_model("bert", head="MaskedLM"), AutoTokenizer.from_pretrained(str(saved["bert"])))
    error = refused(pair, task="question-answering")
    assert error.message.startswith("in-memory BertForMaskedLM has no question-answering head")


@pytest.mark.parametrize("changes", [{"model_type": ["bert"]}, {"model_type": 5}, {"model_type": {"a": 1}}])
def test_a_model_type_that_is_no_name(bert: Path, changes: Dict[str, Any]) -> None:
    edit_config(bert, **changes)
    assert "is not served" in refused(bert).message


@pytest.mark.parametrize("architectures", [5, "BertForQuestionAnswering", [5], {"a": 1}, True])
def test_architectures_that_are_no_list_of_names(saved: Dict[str, Path], bert: Path, architectures: Any) -> None:
    edit_config(bert, architectures=architectures)
    assert load_checkpoint(bert).fingerprint == load_checkpoint(saved["bert"]).fingerprint
    edit_config(bert, model_type=None)
    assert 'names neither a "model_type"' in refused(bert).message


def test_no_head_and_architectures_that_are_no_list(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, "bert", head="")
    edit_config(folder, architectures=5)
    assert "it is a bert encoder" in refused(folder, task="question-answering").message


def test_a_config_that_is_a_folder(bert: Path) -> None:
    (bert / "config.json").unlink()
    (bert / "config.json").mkdir()
    assert "config.json is a folder, not a file" in refused(bert).message


def test_a_tokenizer_with_more_tokens_than_the_model(bert: Path) -> None:
    rows = json.loads((bert / "config.json").read_text())["vocab_size"]
    with open(bert / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("extra\n")
    problem = refused(bert)
    assert f"gives 'extra' the id {rows}, and the model has {rows} tokens" in problem.message
    assert "resize_token_embeddings" in problem.hint


def test_a_pair_may_be_a_list(saved: Dict[str, Path]) -> None:
    import transformers

    model = transformers.BertForQuestionAnswering.from_pretrained(str(saved["bert"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(saved["bert"]))
    assert load_checkpoint([model, tokenizer]).fingerprint == load_checkpoint((model, tokenizer)).fingerprint


@pytest.mark.parametrize("source", [None, 5, object()])
def test_what_can_be_no_checkpoint(source: Any) -> None:
    with pytest.raises(CheckpointError, match=f"not a {type(source).__name__}"):
        load_checkpoint(source)


def test_the_demo_is_the_one_that_was_measured() -> None:
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.iterdir()}
    assert set(digests) == {*DEMO_DIGESTS, "README.md"}
    assert {name: digests[name] for name in DEMO_DIGESTS} == DEMO_DIGESTS


@pytest.mark.parametrize("cloned", [True, False])
def test_without_its_package_the_demo_is_a_command_away(cloned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neuronbert_demo", None)
    if not cloned:
        monkeypatch.setattr(libraries, "DEMO_IN_CLONE", Path("nowhere"))
    with pytest.raises(MissingLibrary) as caught:
        load_checkpoint("demo")
    assert caught.value.message == 'neuronbert-demo is not installed: needed for the checkpoint "demo"'
    hint = caught.value.hint or ""
    if cloned:
        assert Path(shlex.split(hint)[-1]) == FOLDER.parents[1]
    else:
        assert hint.endswith(
            '-m pip install "neuronbert[demo]", or for demo the folder examples/demo-checkpoint of a clone'
        )


def test_the_demo_says_where_it_comes_from() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    demo = load_checkpoint("demo")
    assert f"{demo.parameters / 1e6:.1f}M parameters ({demo.encoder_parameters / 1e6:.1f}M of them" in text
    for word in ("all-MiniLM-L6-v2", "Apache-2.0", "SQuADShifts", "Miller", "CC BY 4.0"):
        assert word in text
