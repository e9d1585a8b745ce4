"""The emulator's compiled file: a subgraph's operators, stages and 16 bit weights as bytes, and back."""

import hashlib
import json
import struct
from typing import Dict, List, NamedTuple, Sequence, Tuple

import safetensors.torch
import torch

from neuronbert.emulator.arithmetic import DTYPES, Arithmetic, Policy
from neuronbert.emulator.graph import Node, Program, Ref, TensorSpec, Value, refs_in
from neuronbert.emulator.operators import MATRIX_PRODUCTS
from neuronbert.emulator.partition import Subgraph, tensors_of
from neuronbert.hardware.device_model import ModelShape

MAGIC = b"NEFF+EMU"
# What the runtime of torch-neuron 1.13.1.2.11.13.0 reads; a newer file is refused.
SUPPORTED_VERSION = "1.1"


class Neff(NamedTuple):
    """A compiled subgraph."""

    version: str
    name: str
    nodes: Tuple[Node, ...]
    inputs: Tuple[Tuple[str, TensorSpec], ...]
    outputs: Tuple[Tuple[str, TensorSpec], ...]
    tensors: Dict[str, torch.Tensor]
    policy: Policy
    pipeline_cores: int
    dynamic_batch_size: bool
    stages: Tuple[Tuple[int, int], ...]  # node ranges [start, end), one a core
    shape: ModelShape
    weights_digest: str  # the same for every batch size and length of one model

    @classmethod
    def from_subgraph(
        cls, program: Program, subgraph: Subgraph, policy: Policy, pipeline_cores: int, dynamic_batch_size: bool
    ) -> "Neff":
        """Stores the subgraph's parameters as the policy's arithmetic would see them."""
        rules = Arithmetic(policy)
        readers = _readers(subgraph.nodes)
        parameters = tensors_of(program, subgraph.nodes)
        tensors = {name: _stored(tensor, readers[name], rules, policy) for name, tensor in parameters.items()}
        return cls(
            SUPPORTED_VERSION,
            subgraph.name,
            subgraph.nodes,
            tuple((name, program.specs[name]) for name in subgraph.inputs),
            tuple((name, program.specs[name]) for name in subgraph.outputs),
            tensors,
            policy,
            pipeline_cores,
            dynamic_batch_size,
            split_stages(subgraph.nodes, parameters, pipeline_cores),
            shape_of(program, subgraph, parameters),
            _digest(tensors),
        )

    @property
    def batch_size(self) -> int:
        """Rows that the subgraph was compiled for."""
        shape = self.inputs[0][1].shape
        return shape[0] if shape else 1


def _readers(nodes: Sequence[Node]) -> Dict[str, List[str]]:
    readers: Dict[str, List[str]] = {}
    for node in nodes:
        for name in refs_in(node.arguments):
            readers.setdefault(name, []).append(node.kind)
    return readers


def _stored(tensor: torch.Tensor, readers: Sequence[str], rules: Arithmetic, policy: Policy) -> torch.Tensor:
    plain = tensor.detach().contiguous()
    if plain.dtype == torch.float64:
        plain = plain.float()  # there is no 64 bit float on the device
    rounded = rules.stored(plain, readers)
    halved = rounded.to(DTYPES[policy.dtype]) if rounded.dtype == torch.float32 else rounded
    if rounded.dtype == torch.float32 and torch.equal(halved.float(), rounded):
        return halved.clone()
    return rounded.clone()


def _digest(tensors: Dict[str, torch.Tensor]) -> str:
    """Of the weights alone: constants and shapes differ between buckets of one model."""
    digest = hashlib.sha256()
    for content in sorted(_bytes(tensor) for tensor in tensors.values() if tensor.dim() >= 2 and tensor.numel() > 64):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    view = tensor.view(torch.int16) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return bytes(view.numpy().tobytes())


def split_stages(
    nodes: Sequence[Node], parameters: Dict[str, torch.Tensor], stages: int
) -> Tuple[Tuple[int, int], ...]:
    """Cuts the operators into contiguous stages that hold about the same number of weights."""
    costs = [
        1 + sum(parameters[name].numel() for name in refs_in(node.arguments) if name in parameters) for node in nodes
    ]
    total, done, cuts = sum(costs), 0, [0]
    for index, cost in enumerate(costs):
        done += cost
        left = len(costs) - index - 1
        if len(cuts) < stages and (done * stages >= total * len(cuts) or left < stages - len(cuts)):
            cuts.append(index + 1)
    return tuple(zip(cuts, [*cuts[1:], len(costs)]))


def shape_of(program: Program, subgraph: Subgraph, parameters: Dict[str, torch.Tensor]) -> ModelShape:
    """What the device model is told of the subgraph: a softmax is a layer, the widest product its feed-forward."""
    softmaxes = [node for node in subgraph.nodes if node.kind == "aten::softmax"]
    matrices = [
        tuple(parameters[name].shape)
        for node in subgraph.nodes
        if node.kind in MATRIX_PRODUCTS
        for name in refs_in(node.arguments)
        if name in parameters and parameters[name].dim() == 2
    ]
    scores = program.specs[softmaxes[0].outputs[0]].shape if softmaxes else ()
    weights = sum(tensor.numel() for tensor in parameters.values() if tensor.is_floating_point())
    return ModelShape(
        layers=max(1, len(softmaxes)),
        hidden=matrices[0][-1] if matrices else 1,
        intermediate=max((max(shape) for shape in matrices), default=1),
        heads=scores[1] if len(scores) == 4 else 1,
        weights=max(1, weights),
    )


# ---------------------------------------------------------------------------- bytes


def build_neff(neff: Neff) -> bytes:
    """Magic, header length, header as JSON, tensors as safetensors."""
    header = {
        "version": neff.version,
        "name": neff.name,
        "nodes": [[n.operator, _encode(list(n.arguments)), n.outputs, n.scope, n.returns_list] for n in neff.nodes],
        "inputs": [[name, spec.shape, _dtype_name(spec.dtype)] for name, spec in neff.inputs],
        "outputs": [[name, spec.shape, _dtype_name(spec.dtype)] for name, spec in neff.outputs],
        "policy": list(neff.policy),
        "pipeline_cores": neff.pipeline_cores,
        "dynamic_batch_size": neff.dynamic_batch_size,
        "stages": neff.stages,
        "shape": neff.shape.__dict__,
        "weights_digest": neff.weights_digest,
    }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    tensors: bytes = safetensors.torch.save(neff.tensors)
    return MAGIC + struct.pack("<Q", len(encoded)) + encoded + tensors


def read_neff(payload: bytes) -> Neff:
    """The Neff in a payload; ValueError for bytes that are none."""
    start = len(MAGIC) + 8
    if payload[: len(MAGIC)] != MAGIC or len(payload) < start:
        raise ValueError("not a NEFF of the emulator")
    end = start + struct.unpack("<Q", payload[len(MAGIC) : start])[0]
    header = json.loads(payload[start:end])
    nodes = [
        Node(operator, tuple(_decode(arguments)), tuple(outputs), scope, returns_list)
        for operator, arguments, outputs, scope, returns_list in header["nodes"]
    ]
    return Neff(
        header["version"],
        header["name"],
        tuple(nodes),
        tuple((name, _spec(shape, dtype)) for name, shape, dtype in header["inputs"]),
        tuple((name, _spec(shape, dtype)) for name, shape, dtype in header["outputs"]),
        safetensors.torch.load(bytes(payload[end:])),
        Policy(*header["policy"]),
        header["pipeline_cores"],
        header["dynamic_batch_size"],
        tuple((start, end) for start, end in header["stages"]),
        ModelShape(**header["shape"]),
        header["weights_digest"],
    )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).split(".")[1]


def _spec(shape: Sequence[int], dtype: str) -> TensorSpec:
    return TensorSpec(tuple(shape), getattr(torch, dtype))


def _encode(value: Value) -> object:
    if isinstance(value, Ref):
        return {"ref": value.name}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, (list, tuple)):
        return [_encode(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a compiled subgraph cannot hold {value!r}")


def _decode(value: object) -> Value:
    if isinstance(value, dict):
        return Ref(value["ref"]) if "ref" in value else torch.device(value["device"])
    if isinstance(value, list):
        return [_decode(inner) for inner in value]
    return value
