"""Turns a traced module into a flat program of operator calls with static shapes; partition.py cuts it up."""

import functools
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple, Union

import torch

from neuronbert.emulator.operators import SUPPORTED

CONTAINERS = {"prim::ListConstruct": list, "prim::TupleConstruct": tuple}
UNPACKERS = ("prim::ListUnpack", "prim::TupleUnpack")
# A trace reads shapes as tensors and turns them back into numbers; with static shapes these are known.
NUMBERS = ("prim::NumToTensor", "prim::ImplicitTensorToNum", "aten::Int", "aten::ScalarImplicit", "aten::Float")


# An operator's argument or result: a Ref, a tensor, a plain value, or lists, tuples and dicts of them.
Value = Any
# What torch.jit.trace gives, for a module and for a function.
Traced = Union[torch.jit.ScriptModule, torch.jit.ScriptFunction]


class Ref(NamedTuple):
    """A tensor that is only known when the program runs."""

    name: str


class Node(NamedTuple):
    """One operator call. ``arguments`` are Refs, plain values, or lists of them."""

    operator: str  # with its overload: aten::to.dtype
    arguments: Tuple[Value, ...]
    outputs: Tuple[str, ...]
    scope: str
    returns_list: bool

    @property
    def kind(self) -> str:
        return self.operator.split(".")[0]


class TensorSpec(NamedTuple):
    """Static shape and dtype of a value."""

    shape: Tuple[int, ...]
    dtype: torch.dtype


class Program(NamedTuple):
    """A model as straight-line code over named tensors."""

    inputs: Tuple[str, ...]
    nodes: Tuple[Node, ...]
    output: Value  # a Ref, or tuples, lists and dicts of them
    tensors: Dict[str, torch.Tensor]  # parameters, buffers, constants
    specs: Dict[str, TensorSpec]


class UntraceableGraph(NotImplementedError):
    """Control flow, or something else that straight-line code cannot express."""


def refs_in(value: Value) -> Iterator[str]:
    """Names of all Refs inside nested arguments."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from refs_in(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from refs_in(inner)


def substitute(value: Value, lookup: Callable[[str], Value]) -> Value:
    """``value`` with every Ref replaced by ``lookup(name)``."""
    if isinstance(value, Ref):
        return lookup(value.name)
    if isinstance(value, (list, tuple)):
        return type(value)(substitute(inner, lookup) for inner in value)
    if isinstance(value, dict):
        return {key: substitute(inner, lookup) for key, inner in value.items()}
    return value


def map_tensors(value: Value, change: Callable[[torch.Tensor], Value]) -> Value:
    """``value`` with every tensor in it replaced by ``change(tensor)``; sequences become lists."""
    if isinstance(value, torch.Tensor):
        return change(value)
    return [map_tensors(inner, change) for inner in value] if isinstance(value, (list, tuple)) else value


def invoke(operator: str, arguments: Sequence[Value]) -> Value:
    """Calls ``aten::to.dtype`` with the arguments as a graph lists them, keyword-only ones among them."""
    function, positional, named = _resolve(operator)
    return function(*arguments[:positional], **dict(zip(named, arguments[positional:])))


@functools.lru_cache(maxsize=None)
def _resolve(operator: str) -> Tuple[Callable[..., Value], int, Tuple[str, ...]]:
    name, _, overload = operator.split("::", 1)[1].partition(".")
    function = getattr(getattr(torch.ops.aten, name), overload or "default")
    arguments = function._schema.arguments
    named = tuple(argument.name for argument in arguments if argument.kwarg_only)
    return function, len(arguments) - len(named), named


def program_of(traced: Traced, example_inputs: Sequence[torch.Tensor]) -> Program:
    """The program of a traced module, its shapes settled by ``example_inputs``."""
    graph = (traced.inlined_graph if hasattr(traced, "inlined_graph") else traced.graph).copy()
    torch._C._jit_pass_inline(graph)
    torch._C._jit_pass_remove_mutation(graph)
    with torch.no_grad():
        return _Reader(traced, graph, example_inputs).read()


class _Reader:
    """Runs the graph once on the example, folding what is static and writing down the rest."""

    def __init__(self, traced: Traced, graph: torch._C.Graph, example_inputs: Sequence[torch.Tensor]):
        self._graph = graph
        self._nodes: List[Node] = []
        self._tensors: Dict[str, torch.Tensor] = {}
        self._owned: Dict[int, str] = {}  # a tensor's id → its name
        self._examples: Dict[str, torch.Tensor] = {}
        self._values: Dict[str, Value] = {}
        names = [value.debugName() for value in graph.inputs()]
        if isinstance(traced, torch.nn.Module):
            self._values[names.pop(0)] = traced
        self._inputs = tuple(f"input.{index}" for index in range(len(names)))
        for debug_name, name, example in zip(names, self._inputs, example_inputs):
            self._values[debug_name] = self._known(name, example)

    def read(self) -> Program:
        for node in self._graph.nodes():
            self._visit(node)
        outputs = [self._values[value.debugName()] for value in self._graph.outputs()]
        specs = {name: TensorSpec(tuple(value.shape), value.dtype) for name, value in self._examples.items()}
        output = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return Program(self._inputs, tuple(self._nodes), self._settled(output), self._tensors, specs)

    def _settled(self, output: Value) -> Value:
        """A value with its constant tensors named, so that it holds Refs and plain values only."""
        if isinstance(output, Ref):
            return output
        if isinstance(output, torch.Tensor):
            return self._owned_ref(output, "constant")
        if isinstance(output, (list, tuple)):
            return type(output)(self._settled(inner) for inner in output)
        if isinstance(output, dict):
            return {key: self._settled(inner) for key, inner in output.items()}
        return output

    def _known(self, name: str, example: torch.Tensor) -> Ref:
        self._examples[name] = example
        return Ref(name)

    def _owned_ref(self, tensor: torch.Tensor, hint: str) -> Ref:
        """A Ref to a parameter, buffer or constant; the same tensor is kept once."""
        name = self._owned.get(id(tensor))
        if name is None:
            name = f"tensor.{len(self._tensors)}.{hint}"
            self._owned[id(tensor)] = name
            self._tensors[name] = tensor
        return self._known(name, tensor)

    def _visit(self, node: torch._C.Node) -> None:
        kind = node.kind()
        outputs = [value.debugName() for value in node.outputs()]
        if kind == "prim::Constant":
            self._values[outputs[0]] = node.output().toIValue()
            return
        arguments = [self._values[value.debugName()] for value in node.inputs()]
        if kind == "prim::GetAttr":
            self._values[outputs[0]] = self._attribute(arguments[0], node.s("name"))
        elif kind in CONTAINERS:
            self._values[outputs[0]] = CONTAINERS[kind](arguments)
        elif kind == "prim::DictConstruct":
            self._values[outputs[0]] = dict(zip(arguments[::2], arguments[1::2]))
        elif kind in UNPACKERS:
            self._values.update(zip(outputs, arguments[0]))
        elif kind == "aten::size":
            self._values[outputs[0]] = self._size(arguments)
        elif kind in NUMBERS and not list(refs_in(arguments)):
            self._values[outputs[0]] = _number(kind, arguments[0])
        elif kind.startswith("aten::"):
            self._call(node, kind, arguments, outputs)
        else:
            raise UntraceableGraph(f"{kind} at {node.sourceRange().strip().splitlines()[-1:]}")

    def _attribute(self, owner: torch.nn.Module, name: str) -> Value:
        value = getattr(owner, name)
        if isinstance(value, torch.Tensor):
            # Script modules wrap a parameter anew at each access; its storage is what stays the same.
            for known, tensor in self._tensors.items():
                if tensor.data_ptr() == value.data_ptr() and tensor.shape == value.shape and value.numel():
                    return Ref(known)
            return self._owned_ref(value.detach(), name)
        return value

    def _size(self, arguments: List[Value]) -> Value:
        shape = list(self._concrete(arguments[0]).shape)
        return shape if len(arguments) == 1 else shape[arguments[1]]

    def _concrete(self, value: Value) -> Value:
        return substitute(value, self._examples.__getitem__)

    def _call(self, node: torch._C.Node, kind: str, arguments: List[Value], outputs: List[str]) -> None:
        operator = node.schema().split("(")[0]
        result = invoke(operator, self._concrete(arguments))
        if self._folds(kind, arguments):
            # A folded tensor of parameters becomes a constant of the program.
            named = result if not list(refs_in(arguments)) else map_tensors(result, self._folded)
            self._values.update(zip(outputs, [named] if len(outputs) == 1 else named))
            return
        if not _is_tensors(result):
            self._values.update(zip(outputs, [result] if len(outputs) == 1 else result))
            return
        returns_list = isinstance(result, (list, tuple))
        values = list(result) if returns_list else [result]
        names = tuple(f"value.{len(self._examples)}.{index}" for index in range(len(values)))
        refs = [self._known(name, value) for name, value in zip(names, values)]
        self._nodes.append(Node(operator, tuple(self._settled(arguments)), names, node.scopeName(), returns_list))
        self._values.update(zip(outputs, [refs if returns_list else refs[0]] if len(outputs) == 1 else refs))

    def _folded(self, tensor: torch.Tensor) -> Ref:
        return self._owned_ref(tensor, "folded")

    def _folds(self, kind: str, arguments: List[Value]) -> bool:
        """Constants fold; so does floating-point work on parameters alone, if the device could do it."""
        names = list(refs_in(arguments))
        if not names:
            return True
        only_parameters = all(name in self._tensors for name in names)
        floating = all(self._examples[name].is_floating_point() for name in names)
        return only_parameters and floating and kind in SUPPORTED


def _number(kind: str, value: Value) -> Value:
    if kind == "prim::NumToTensor":
        return torch.tensor(value)
    return value.item() if isinstance(value, torch.Tensor) else value


def _is_tensors(value: Value) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(inner, torch.Tensor) for inner in value)
    return isinstance(value, torch.Tensor)
