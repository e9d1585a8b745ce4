"""graph.json and weights.safetensors: written and read back; damaged, they are refused by name."""

import copy
import json
import math
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_models import GRAPH, LABELS, TASKS, encoder_source, exported
from tiny_source import TinySource, random_batch

from neuronbert.backends.cuda import backend
from neuronbert.backends.cuda.graph import (
    ACTIVATIONS,
    FILE_NAME,
    Graph,
    graph_of,
    head_weight_names,
    load_graph,
    save_graph,
)
from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.checkpoint.config import CONFIG
from neuronbert.checkpoint.families import FAMILIES, expected_shapes, usable_positions
from neuronbert.errors import BackendFailed
from neuronbert.tasks.feature_extraction.modules import SentenceModules
from neuronbert.tasks.question_answering.task import HEAD, OUTPUTS

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

WEIGHTS = "weights.safetensors"
CPU = torch.device("cpu")


# ---------------------------------------------------------------------- the graph


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("name", TASKS)
def test_a_graph_comes_back_as_it_was_written(tmp_path: Path, name: str, model_type: str) -> None:
    source = TinySource(model_type, TASKS[name], **LABELS)
    graph = graph_of(source.config, source.head, source.family.has_token_types)
    save_graph(graph, tmp_path)
    assert load_graph(tmp_path) == graph
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME}


def test_what_config_json_may_say_a_graph_may_too(tmp_path: Path) -> None:
    """What was compiled must not be refused as damaged."""
    most = {key: form["maximum"] for key, form in CONFIG.form["properties"].items() if "maximum" in form}
    most.update(model_type="electra", num_attention_heads=1 << 10, num_hidden_layers=10_000, layer_norm_eps=1)
    assert CONFIG.fault(most) is None
    graph = graph_of(most, HEAD, True)
    save_graph(graph, tmp_path)
    assert load_graph(tmp_path) == graph


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_graph_has_every_number_of_the_checkpoint(model_type: str) -> None:
    """As many as transformers' own weights; without types those of the one that is added to the positions are gone."""
    source = TinySource(model_type)
    for with_types in {source.family.has_token_types, False}:
        graph = graph_of(source.config, HEAD, with_types)
        theirs = sum(math.prod(shape) for shape in expected_shapes(source.config, source.family, None).values())
        types = 0 if with_types or model_type == "distilbert" else 2 * graph.embedding_width
        assert sum(math.prod(shape) for shape in graph.encoder_shapes().values()) == theirs - types


@pytest.mark.parametrize("changes", [{}, {"pad_token_id": 0}, {"max_position_embeddings": 514, "pad_token_id": 7}])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_longest_row_is_what_the_tokenizer_is_told(model_type: str, changes: Dict[str, int]) -> None:
    config = {"model_type": model_type, **changes}
    assert graph_of(config, HEAD, False).longest_row == usable_positions(config, FAMILIES[model_type])


@pytest.mark.parametrize("activation", ["quick_gelu", "mish", "", "Gelu", ["gelu"], {"a": 1}, 7])
def test_an_activation_that_the_encoder_has_not_is_refused_by_name(activation: Any, tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_act": activation}
    if not activation:  # as good as none
        assert graph_of(config, HEAD, True).activation == "gelu"
        return
    with pytest.raises(BackendFailed, match="the model's activation is") as caught:
        graph_of(config, HEAD, True)
    assert repr(activation) in caught.value.message and all(name in caught.value.message for name in ACTIVATIONS)
    assert caught.value.hint


def test_operations_are_counted_by_hand() -> None:
    graph = GRAPH._replace(layers=3, hidden=4, intermediate=6, heads=2)
    per_token = 2 * (3 * 4 * 4 + 4 * 4 + 2 * 4 * 6)
    assert graph.flops(np.array([2, 5])) == 3 * (7 * per_token + 4 * 4 * (4 + 25))
    assert graph.flops(np.array([], dtype=int)) == 0


# ---------------------------------------------------------------------- damaged graphs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(TinySource(), tmp_path_factory.mktemp("variant"))


@pytest.fixture
def variant(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def load(folder: Path, precision: str = "fp32", outputs: Any = OUTPUTS) -> Any:
    return backend.load_on(CPU, folder, precision, outputs, 1)


def refused(folder: Path, name: str, precision: str = "fp32", outputs: Any = OUTPUTS) -> str:
    """What is said of the damage, with the file's name in it; nothing but BackendFailed comes out."""
    with pytest.raises(BackendFailed) as caught:
        load(folder, precision, outputs)
    assert str(folder / name) in caught.value.message and caught.value.hint
    return caught.value.message


def with_facts(folder: Path, **facts: Any) -> None:
    path = folder / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


WRONG = [None, "bert", [], {}, -1, 1 << 40, 10**400, 0.5, 1e308, True, "1"]


@pytest.mark.parametrize("name", Graph._fields)
def test_a_field_that_is_something_else_is_named(variant: Path, name: str) -> None:
    intact = (variant / FILE_NAME).read_text()
    for value in WRONG:
        fits = {"norm_epsilon": (-1, 1 << 40, 0.5, 1e308), "skips_padding_id": (True,)}.get(name, ())
        if value in fits and type(value) in {type(one) for one in fits}:
            continue
        with_facts(variant, **{name: value})
        said = refused(variant, FILE_NAME)
        assert name in said or len(str(value)) > 300, (value, said)
        (variant / FILE_NAME).write_text(intact)
    facts = json.loads(intact)
    del facts[name]
    (variant / FILE_NAME).write_text(json.dumps(facts))
    assert f"lacks {name}" in refused(variant, FILE_NAME)


@pytest.mark.parametrize(
    "facts",
    [
        {"layers": 0},
        {"heads": 0},
        {"heads": 3},
        {"heads": 5000},
        {"hidden": 0},
        {"vocabulary": 0},
        {"activation": "identity"},
        {"skips_padding_id": True, "padding_id": 79},
        {"skips_padding_id": True, "padding_id": 1 << 27},
    ],
)
def test_sizes_that_make_no_model_are_refused(variant: Path, facts: Dict[str, Any]) -> None:
    with_facts(variant, **facts)
    refused(variant, FILE_NAME)


@pytest.mark.parametrize(
    "facts",
    [
        {"layers": 1}, {"layers": 3}, {"layers": 10_000}, {"hidden": 16}, {"hidden": 1 << 27, "heads": 1},
        {"vocabulary": 119}, {"vocabulary": 1 << 27}, {"positions": 1 << 27}, {"token_types": 0}, {"token_types": 3},
        {"embedding_width": 16}, {"intermediate": 65},
    ],
)  # fmt: skip
def test_sizes_of_another_model_do_not_fit_the_weights(variant: Path, facts: Dict[str, Any]) -> None:
    with_facts(variant, **facts)
    refused(variant, WEIGHTS)


LOGITS = {
    "step": "linear",
    "weight": "qa_outputs.weight",
    "bias": "qa_outputs.bias",
    "activation": "identity",
    "skip": None,
}
FIRST, SECOND = {"step": "column", "number": 0}, {"step": "column", "number": 1}
POOL = {"step": "pool", "poolings": ["cls"]}


def without(step: Dict[str, Any], name: str) -> Dict[str, Any]:
    return {key: value for key, value in step.items() if key != name}


@pytest.mark.parametrize(
    "head",
    [
        [],
        [[LOGITS, FIRST]],
        [[LOGITS, FIRST], [LOGITS, SECOND], [LOGITS]],
        [[LOGITS, FIRST], [POOL, LOGITS, SECOND]],
        *([[without(LOGITS, name), FIRST], [LOGITS, SECOND]] for name in LOGITS),
        [[LOGITS, {"step": "column"}], [LOGITS, SECOND]],
        [[{"step": "pool"}, LOGITS, FIRST], [LOGITS, SECOND]],
        [[{"step": "softmax"}], [LOGITS, SECOND]],
        [[{"step": ["linear"]}], [LOGITS, SECOND]],
        [["linear"], [LOGITS, SECOND]],
        [LOGITS, LOGITS],
        [[LOGITS, {"step": "column", "number": -1}], [LOGITS, SECOND]],
        [[LOGITS, {"step": "column", "number": 1 << 40}], [LOGITS, SECOND]],
        [[LOGITS, {"step": "column", "number": "0"}], [LOGITS, SECOND]],
        [[{**LOGITS, "activation": "softmax"}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "weight": "../../etc/passwd"}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "weight": None}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "weight": ""}, FIRST], [LOGITS, SECOND]],
        [[{"step": "pool", "poolings": []}, LOGITS, FIRST], [LOGITS, SECOND]],
        [[{"step": "pool", "poolings": ["median"]}], [LOGITS, SECOND]],
        [[LOGITS] * 65, [LOGITS, SECOND]],
        [[LOGITS, FIRST]] * 17,
    ],
)
def test_a_head_that_is_none_is_refused(variant: Path, head: Any) -> None:
    with_facts(variant, head=head)
    refused(variant, FILE_NAME)


@pytest.mark.parametrize(
    "head",
    [
        [[LOGITS, {"step": "column", "number": 2}], [LOGITS, SECOND]],
        [[LOGITS, FIRST, FIRST], [LOGITS, SECOND]],
        [[LOGITS, FIRST, {"step": "normalize"}], [LOGITS, SECOND]],  # over all tokens of the batch
        [[LOGITS, LOGITS, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "skip": "input"}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "skip": "qa_outputs.bias"}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "bias": "qa_outputs.weight"}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "weight": "qa_outputs.bias"}, FIRST], [LOGITS, SECOND]],
        [[{**LOGITS, "weight": "other.weight"}, FIRST], [LOGITS, SECOND]],
        [[FIRST], [SECOND]],  # and weights that nobody reads
    ],
)
def test_a_head_that_its_weights_do_not_fit_is_refused_before_it_runs(variant: Path, head: Any) -> None:
    with_facts(variant, head=head)
    refused(variant, WEIGHTS)


def test_a_pooling_behind_a_pooling_reads_no_memory_that_is_not_its_own(tmp_path: Path) -> None:
    """Where the rows are among tokens says nothing of what is one row each: it read far behind it."""
    source = encoder_source(SentenceModules(("mean",)))
    exported(source, tmp_path)
    with_facts(tmp_path, head=[[POOL, POOL]])
    assert "a pooling follows another" in refused(tmp_path, WEIGHTS, outputs=source.outputs)


@pytest.mark.parametrize(
    "outputs",
    [OUTPUTS[:1], (*OUTPUTS, Output("more", PER_TOKEN)), (Output("a", PER_ROW), Output("b", PER_TOKEN)), ()],
)
def test_outputs_of_another_task_are_refused(folder: Path, outputs: Tuple[Output, ...]) -> None:
    refused(folder, FILE_NAME, outputs=outputs)


@given(st.integers(0, 2000), st.binary(max_size=6))
def test_no_damage_to_its_bytes_is_anything_but_backend_failed(folder: Path, place: int, put: bytes) -> None:
    whole = (folder / FILE_NAME).read_bytes()
    place %= len(whole)
    (folder / FILE_NAME).write_bytes(whole[:place] + put + whole[place + len(put) :])
    try:
        load_graph(folder)
    except BackendFailed as error:
        assert FILE_NAME in error.message
    finally:
        (folder / FILE_NAME).write_bytes(whole)


@pytest.mark.parametrize("name", [FILE_NAME, WEIGHTS])
def test_what_is_no_file_is_refused(variant: Path, folder: Path, name: str) -> None:
    (variant / name).unlink()
    assert "is missing" in refused(variant, name)
    (variant / name).mkdir()
    assert "is a folder" in refused(variant, name)
    (variant / name).rmdir()
    os.mkfifo(variant / name)
    assert "is a named pipe" in refused(variant, name)  # and not waited for
    (variant / name).unlink()
    (variant / name).symlink_to(folder / name)
    assert "is a symbolic link" in refused(variant, name)


# ---------------------------------------------------------------------- damaged weights

Change = Callable[[Dict[str, Any]], Any]


def rewritten(folder: Path, change: Change) -> None:
    from safetensors.torch import load_file, save_file

    weights = {name: weight.clone() for name, weight in load_file(str(folder / WEIGHTS)).items()}
    change(weights)
    save_file(weights, str(folder / WEIGHTS))


def reshaped(name: str, *shape: int) -> Change:
    return lambda weights: weights.update({name: torch.zeros(shape)})


def retyped(name: str, dtype: Any) -> Change:
    return lambda weights: weights.update({name: weights[name].to(dtype)})


WORD, BIAS, MATRIX = "embeddings.word", "layers.1.qkv.bias", "layers.0.widen.weight"
CHANGES: Dict[str, Tuple[Change, str]] = {
    "missing": (lambda weights: weights.pop(MATRIX), MATRIX),
    "extra": (lambda weights: weights.update({"layers.2.qkv.bias": torch.zeros(96)}), "layers.2.qkv.bias"),
    "extra scale": (lambda weights: weights.update({MATRIX + ".scale": torch.zeros(64)}), MATRIX + ".scale"),
    "of the head": (lambda weights: weights.pop("head.qa_outputs.bias"), "head.qa_outputs.bias"),
    "fewer rows": (reshaped(WORD, 119, 32), WORD),
    "one axis": (reshaped(WORD, 120 * 32), WORD),
    "transposed": (reshaped(MATRIX, 32, 64), MATRIX),
    "empty": (reshaped(BIAS, 0), BIAS),
    "a number": (reshaped(BIAS), BIAS),
    "half": (retyped(WORD, torch.float16), WORD),
    "double": (retyped(BIAS, torch.float64), BIAS),
    "whole numbers": (retyped(MATRIX, torch.int64), MATRIX),
    "8 bits": (retyped(MATRIX, torch.float8_e4m3fn), MATRIX),
    "half of the head": (retyped("head.qa_outputs.weight", torch.float16), "head.qa_outputs.weight"),
    "head of other labels": (reshaped("head.qa_outputs.weight", 3, 32), "qa_outputs.bias"),
    "head of another width": (reshaped("head.qa_outputs.weight", 2, 31), "qa_outputs.weight"),
    "none": (lambda weights: weights.clear(), "embeddings"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_are_not_the_graph_s_are_named(variant: Path, name: str) -> None:
    change, named = CHANGES[name]
    rewritten(variant, change)
    assert named in refused(variant, WEIGHTS)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, -1, -5000])
def test_truncated_weights_are_refused(variant: Path, size: int) -> None:
    (variant / WEIGHTS).write_bytes((variant / WEIGHTS).read_bytes()[:size])
    refused(variant, WEIGHTS)


def header_of(raw: bytes) -> Tuple[Dict[str, Any], bytes]:
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def headed(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F4"}, {"dtype": "F8_E8M0"}, {"dtype": "C64"}, {"dtype": "U64"}, {"dtype": "bogus"},
        {"data_offsets": [0, 1 << 62]}, {"data_offsets": [8, 0]}, {"shape": [1 << 62, 4]}, {"shape": [-1]},
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(variant: Path, change: Dict[str, Any]) -> None:
    header, data = header_of((variant / WEIGHTS).read_bytes())
    header = copy.deepcopy(header)
    header[BIAS].update(change)
    (variant / WEIGHTS).write_bytes(headed(header, data))
    refused(variant, WEIGHTS)


@pytest.mark.parametrize(
    "raw", [b"\xff" * 64, (1 << 40).to_bytes(8, "little") + b"{}", headed([], b""), headed({}, b""), headed("x", b"")]
)
def test_what_is_no_safetensors_file_is_refused(variant: Path, raw: bytes) -> None:
    (variant / WEIGHTS).write_bytes(raw)
    refused(variant, WEIGHTS)


def test_whoever_may_read_the_graph_may_read_the_weights(tmp_path: Path) -> None:
    """safetensors 0.8 makes a file for its owner alone: a service of another user could not load the artifact."""
    before = os.umask(0o027)
    try:
        exported(TinySource(), tmp_path)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {FILE_NAME: 0o640, WEIGHTS: 0o640}


def test_a_pickle_is_not_opened(variant: Path, tmp_path: Path) -> None:
    """By its name or by another's: what it would do is not done."""
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> Tuple[Any, ...]:
            return (canary.write_text, ("executed",))

    torch.save({"weights": Payload()}, variant / WEIGHTS)
    refused(variant, WEIGHTS)
    torch.save({"weights": Payload()}, variant / FILE_NAME)
    refused(variant, FILE_NAME)
    (variant / FILE_NAME).unlink()
    torch.save({"weights": Payload()}, variant / "pytorch_model.bin")
    refused(variant, FILE_NAME)
    assert not canary.exists()


# ---------------------------------------------------------------------- precisions

TYPES = {"fp32": "F32", "tf32": "F32", "bf16": "BF16", "fp16": "F16", "fp8": "BF16"}


@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_the_precision_is_read_back_from_the_weights(tmp_path: Path, precision: str) -> None:
    source = TinySource()
    session = load(exported(source, tmp_path, precision), precision)
    assert session.precision == precision
    header, _ = header_of((tmp_path / WEIGHTS).read_bytes())
    assert header["embeddings.word"]["dtype"] == TYPES[precision]
    products = {entry["dtype"] for name, entry in header.items() if ".qkv.weight" in name and "scale" not in name}
    assert products == {"F8_E4M3" if precision == "fp8" else TYPES[precision]}
    exact = [name for name in header if "norm." in name or name.startswith("head.") or name.endswith(".scale")]
    assert len(exact) == 12 + (8 if precision == "fp8" else 0)  # three norms of two layers, the head, four matrices
    assert {header[name]["dtype"] for name in exact} == {"F32"}


@pytest.mark.parametrize("wrong", backend.PRECISIONS)
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_another_precision_than_the_manifest_s_is_refused(tmp_path: Path, precision: str, wrong: str) -> None:
    exported(TinySource(), tmp_path, precision)
    if {precision, wrong} <= {"fp32", "tf32"} or precision == wrong:
        assert load(tmp_path, wrong).precision == wrong
    else:
        refused(tmp_path, WEIGHTS, wrong)


# Random weights are a worst case: the differences of a trained model are far smaller. Measured: 0.021, 0.0039, 0.17.
TOLERANCES = {"bf16": 0.05, "fp16": 0.008, "fp8": 0.3}


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_fewer_bits_differ_by_their_rounding(tmp_path: Path, precision: str, model_type: str) -> None:
    """As a share of the spread of the outputs; and they differ, or nothing was rounded."""
    source = TinySource(model_type)
    session = load(exported(source, tmp_path, precision), precision)
    batch = random_batch(4, 40, padding=9)
    found, expected = session.run(batch), source.logits(batch)
    seen = batch.attention_mask.astype(bool)
    distance = max(
        float(np.abs(found[name] - expected[name])[seen].max() / np.ptp(expected[name][seen])) for name in found
    )
    assert 1e-5 < distance < TOLERANCES[precision]


def test_what_the_head_names_is_all_that_is_stored_of_it(folder: Path) -> None:
    header, _ = header_of((folder / WEIGHTS).read_bytes())
    stored: List[str] = sorted(name for name in header if name.startswith("head."))
    assert stored == [f"head.{name}" for name in head_weight_names(load_graph(folder))]


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 99), st.integers(-30, 30))
def test_fp8_rounds_each_number_by_no_more_than_a_16th(rows: int, width: int, seed: int, exponent: int) -> None:
    """e4m3 has 3 bits behind the first: 1/16 of a number, or half its least step where a row's largest is far above.

    https://arxiv.org/abs/2209.05433, table 1: the largest number is 448, the least subnormal one 2 ** -9.
    """
    from neuronbert.backends.cuda import layers, weights

    matrix = torch.from_numpy(np.random.default_rng(seed).normal(0, 2.0**exponent, (rows, width))).float()
    matrix[0] = 0
    for fp8, scale in (weights.to_fp8(matrix), layers.to_fp8(matrix)):
        scale = scale.reshape(-1, 1)
        assert fp8.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32 and bool((scale > 0).all())
        back = fp8.float() * scale
        bound = torch.maximum(matrix.abs() / 16, scale * 2.0**-10)
        assert bool(((back - matrix).abs() <= bound * 1.0001).all())
        assert bool((back[0] == 0).all()) and bool(torch.isfinite(back).all())
        np.testing.assert_allclose(back.abs().amax(dim=1).numpy(), matrix.abs().amax(dim=1).numpy(), rtol=1e-6)
