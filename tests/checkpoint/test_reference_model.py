"""The reference model gives transformers' own logits to the last bit, padded or not, and its trace takes any size."""

import json
from pathlib import Path
from typing import Any, Tuple

import pytest
import torch
from tiny_checkpoints import FAMILIES, tiny_model, write_checkpoint

from neuronbert.checkpoint.families import FAMILIES as SERVED
from neuronbert.checkpoint.loading import Checkpoint
from neuronbert.checkpoint.reference_model import MASKED_SCORE, additive_mask, load_strictly, new_transformers_model
from neuronbert.errors import BackendFailed
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.task import HEAD

ROWS, TOKENS = 3, 20


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Tuple[Checkpoint, Any]:
    """A checkpoint and transformers' own model of it, with eager attention where there is a choice."""
    folder = tmp_path_factory.mktemp("reference") / request.param
    own = tiny_model(request.param)
    if hasattr(own, "set_attn_implementation"):
        own.set_attn_implementation("eager")
    own.config.return_dict = True
    return load_checkpoint(write_checkpoint(folder, request.param)), own


def batch(
    lengths: Tuple[int, ...] = (TOKENS, 7, 13), pad_id: int = 0
) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of random tokens, padded to TOKENS; the second third of each row has token type 1."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 70, (len(lengths), TOKENS), generator=generator)
    mask = (torch.arange(TOKENS)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.where(mask.bool(), ids, torch.full_like(ids, pad_id))
    types = (torch.arange(TOKENS)[None] >= 5).long() * mask
    return ids, mask, types


def own_logits(own: Any, checkpoint: Checkpoint, inputs: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, torch.Tensor]:
    named = dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs))
    with torch.no_grad():
        out = own(**{name: named[name] for name in checkpoint.input_names})
    return out.start_logits, out.end_logits


def pad_id(checkpoint: Checkpoint) -> int:
    return int(checkpoint.config["pad_token_id"])


def test_logits_equal_transformers(pair: Tuple[Checkpoint, Any]) -> None:
    checkpoint, own = pair
    model = checkpoint.torch_model()
    assert type(model.model).__name__ == checkpoint.architecture
    assert not model.training
    inputs = batch(pad_id=pad_id(checkpoint))
    with torch.no_grad():
        found = model(*inputs)
    assert isinstance(found, tuple)
    for ours, theirs in zip(found, own_logits(own, checkpoint, inputs)):
        assert ours.dtype == torch.float32 and ours.shape == (ROWS, TOKENS)
        assert torch.equal(ours, theirs)


def test_padding_changes_nothing(pair: Tuple[Checkpoint, Any]) -> None:
    checkpoint, _ = pair
    model = checkpoint.torch_model()
    ids, mask, types = batch(pad_id=pad_id(checkpoint))
    with torch.no_grad():
        padded = model(ids, mask, types)
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            alone = model(*(tensor[row : row + 1, :length] for tensor in (ids, mask, types)))
            for whole, part in zip(padded, alone):
                assert torch.allclose(whole[row, :length], part[0], atol=1e-5, rtol=0)


def test_token_types_count_where_the_family_has_them(pair: Tuple[Checkpoint, Any]) -> None:
    checkpoint, _ = pair
    model = checkpoint.torch_model()
    ids, mask, types = batch(pad_id=pad_id(checkpoint))
    with torch.no_grad():
        same = torch.equal(model(ids, mask, types)[0], model(ids, mask, torch.zeros_like(types))[0])
    assert same == ("token_type_ids" not in checkpoint.input_names)


def test_a_trace_takes_other_sizes(pair: Tuple[Checkpoint, Any]) -> None:
    checkpoint, _ = pair
    model = checkpoint.torch_model()
    traced = torch.jit.trace(model, batch((9, 9), pad_id(checkpoint)))
    for lengths in ((TOKENS,), (4, 20, 11, 1)):
        inputs = batch(lengths, pad_id(checkpoint))
        with torch.no_grad():
            for ours, theirs in zip(traced(*inputs), model(*inputs)):
                assert torch.allclose(ours, theirs, atol=1e-6)
    short = tuple(tensor[:, :3] for tensor in batch(pad_id=pad_id(checkpoint)))
    with torch.no_grad():
        assert torch.allclose(traced(*short)[0], model(*short)[0], atol=1e-6)


def test_openvino_converts_it_with_dynamic_sizes(pair: Tuple[Checkpoint, Any]) -> None:
    openvino = pytest.importorskip("openvino")
    checkpoint, _ = pair
    model = checkpoint.torch_model()
    count = len(checkpoint.input_names)
    converted = openvino.convert_model(model, example_input=batch((9, 9), pad_id(checkpoint))[:count])
    assert all(port.partial_shape.is_dynamic for port in converted.inputs)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.compile_model(converted, "CPU", options)
    inputs = batch((4, 20, 11, 1), pad_id(checkpoint))
    found = compiled([tensor.numpy() for tensor in inputs[:count]])
    with torch.no_grad():
        expected = model(*inputs)
    for number in range(2):
        assert torch.allclose(torch.from_numpy(found[number]), expected[number], atol=1e-4)


def test_no_value_of_the_mask_overflows_sixteen_bits() -> None:
    mask = additive_mask(torch.tensor([[1, 1, 0]]))
    assert mask.shape == (1, 1, 1, 3) and mask.dtype == torch.float32
    assert mask.flatten().tolist() == [0.0, 0.0, MASKED_SCORE]
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.isfinite((mask + MASKED_SCORE).to(dtype)).all()


def test_no_constant_of_the_trace_overflows_sixteen_bits(pair: Tuple[Checkpoint, Any]) -> None:
    checkpoint, _ = pair
    graph = torch.jit.trace(checkpoint.torch_model(), batch((9, 9), pad_id(checkpoint))).inlined_graph
    kinds = {"f": "f", "t": "t"}
    found = []
    for node in graph.findAllNodes("prim::Constant"):
        kind = node.kindOf("value") if node.hasAttribute("value") else ""
        if kind in kinds:
            found.append(torch.as_tensor(getattr(node, kinds[kind])("value"), dtype=torch.float32))
    assert any((value == MASKED_SCORE).any() for value in found)
    assert all(torch.isfinite(value.half()).all() for value in found)


def test_building_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_checkpoint("demo").torch_model()
    assert torch.equal(torch.rand(3), expected)


def test_weights_must_match_one_to_one() -> None:
    config = tiny_model("bert").config.to_dict()
    model = new_transformers_model(SERVED["bert"], HEAD, config)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    load_strictly(model, weights)
    del weights["qa_outputs.bias"]
    with pytest.raises(BackendFailed, match=r"names BertForQuestionAnswering weights differently: qa_outputs\.bias"):
        load_strictly(model, weights)


def test_a_config_cannot_change_what_forward_gives(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "bert")
    path = tmp_path / "config.json"
    config = {**json.loads(path.read_text()), "output_hidden_states": True, "chunk_size_feed_forward": 4}
    path.write_text(json.dumps(config))
    plain = load_checkpoint(tmp_path).torch_model()
    inputs = batch()
    with torch.no_grad():
        found = plain(*inputs)
    assert len(found) == 2 and found[0].shape == inputs[0].shape
