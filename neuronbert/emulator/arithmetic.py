"""What the device's 16 bit arithmetic does to a program: --fast-math as a policy, and an interpreter that obeys it."""

from typing import Dict, List, Mapping, NamedTuple, Sequence

import torch

from neuronbert.emulator.graph import Node, Value, invoke, map_tensors, refs_in, substitute
from neuronbert.emulator.operators import MATRIX_PRODUCTS, RELAYOUTS

BF16, FP16 = "bf16", "fp16"
DTYPES = {BF16: torch.bfloat16, FP16: torch.float16}


class Policy(NamedTuple):
    """How neuron-cc was told to cast. There is no 32 bit matrix product on inf1 (aws-neuron-sdk issue 765)."""

    everything: bool = True  # fp32-cast-all: every operator; otherwise the operands of matrix products
    dtype: str = BF16
    fast_relayout: bool = True
    saturate_infinity: bool = False


class Arithmetic:
    """Rounds float tensors as a Policy asks; values stay in 32 bit containers, so any CPU can compute them."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._dtype = DTYPES[policy.dtype]
        self._limit = torch.finfo(self._dtype).max

    def round(self, tensor: torch.Tensor) -> torch.Tensor:
        """The nearest values that 16 bits hold; beyond the largest is infinity unless told to saturate."""
        if tensor.dtype != torch.float32:
            return tensor
        if self._policy.saturate_infinity:
            tensor = tensor.clamp(-self._limit, self._limit)
        return tensor.to(self._dtype).to(torch.float32)

    def stored(self, tensor: torch.Tensor, operators: Sequence[str]) -> torch.Tensor:
        """A parameter as the compiler stores it: already rounded when every reader would round it."""
        rounded = self._policy.everything or all(operator in MATRIX_PRODUCTS for operator in operators)
        return self.round(tensor) if rounded else tensor

    def entering(self, tensor: torch.Tensor) -> torch.Tensor:
        """An input of the subgraph as it arrives on the device."""
        return self.round(tensor) if self._policy.everything else tensor

    def call(self, node: Node, arguments: Sequence[Value]) -> Value:
        """One operator, its operands and result rounded as the policy says."""
        if node.kind in MATRIX_PRODUCTS:
            arguments = map_tensors(list(arguments), self.round)
        result = invoke(node.operator, arguments)
        relayout = node.kind in RELAYOUTS and self._policy.fast_relayout
        if self._policy.everything or relayout:
            result = map_tensors(result, self.round)
        return result


def run_nodes(
    nodes: Sequence[Node],
    values: Dict[str, Value],
    tensors: Mapping[str, torch.Tensor],
    rules: Arithmetic,
    dead_after: Mapping[str, Sequence[str]],
) -> None:
    """Runs ``nodes`` on ``values``, which their outputs join and which lose what nobody reads any more."""

    def look_up(name: str) -> Value:
        return values[name] if name in values else tensors[name]

    for node in nodes:
        result = rules.call(node, substitute(list(node.arguments), look_up))
        values.update(zip(node.outputs, result if node.returns_list else [result]))
        for name in dead_after.get(node.outputs[0], ()):
            values.pop(name, None)


def last_readers(nodes: Sequence[Node], results: Sequence[str]) -> Dict[str, Sequence[str]]:
    """A node's first output → the values nobody reads after that node."""
    reader: Dict[str, str] = {}
    for node in nodes:
        for name in [*refs_in(node.arguments), *node.outputs]:
            reader[name] = node.outputs[0]
    dead: Dict[str, List[str]] = {}
    for name, last in reader.items():
        if name not in results:
            dead.setdefault(last, []).append(name)
    return {name: tuple(names) for name, names in dead.items()}
