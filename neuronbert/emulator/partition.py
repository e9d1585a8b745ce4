"""Decides which operators go to NeuronCores and in which subgraphs; tracing.py has each one compiled."""

from typing import Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import torch

from neuronbert.emulator.graph import Node, Program, refs_in
from neuronbert.emulator.operators import ANCHORS, SUPPORTED

# "no FP64/INT64 I/O" (neuron-cc): an operator that reads or makes a 64 bit float stays on the CPU. Whole numbers of 64
# bits do go to the compiler: aws-neuron-sdk issues 269 and 410 show them in --io-config.
HOST_ONLY_DTYPES = (torch.float64,)


class Subgraph(NamedTuple):
    """Operators that run on the device in one call."""

    name: str
    nodes: Tuple[Node, ...]
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]


class Step(NamedTuple):
    """A stretch of the model: operators on the CPU, or one subgraph on the device."""

    nodes: Tuple[Node, ...]
    subgraph: Optional[Subgraph]


class NodeView(NamedTuple):
    """What a ``subgraph_builder_function`` is shown of an operator."""

    name: str
    operator: str


Wanted = Callable[[NodeView], bool]


def eligible_nodes(
    program: Program, supported: Iterable[str] = SUPPORTED, wanted: Optional[Wanted] = None
) -> FrozenSet[int]:
    """Indexes of the nodes that the device will be given.

    What surrounds the real work on the way in (the sum of the embeddings, the extended mask) stays on the
    CPU with the embeddings, as AWS's log shows: the subgraph's inputs there are [1, 128, 768] and [1, 1, 1, 128].
    """
    known = frozenset(supported)
    device_nodes: Set[int] = set()
    on_device: Set[str] = set()
    for index, node in enumerate(program.nodes):
        if node.kind not in known or not _dtypes_allowed(program, node):
            continue
        if wanted is not None and not wanted(NodeView(f"{node.scope}/{node.kind}", node.kind)):
            continue
        if node.kind in ANCHORS or any(name in on_device for name in refs_in(node.arguments)):
            device_nodes.add(index)
            on_device.update(node.outputs)
    return frozenset(device_nodes)


def _dtypes_allowed(program: Program, node: Node) -> bool:
    read = [name for name in refs_in(node.arguments) if name not in program.tensors]
    return all(program.specs[name].dtype not in HOST_ONLY_DTYPES for name in [*read, *node.outputs])


def phases_of(program: Program, device_nodes: FrozenSet[int]) -> Dict[int, int]:
    """Node index → phase: how often its longest chain of inputs returned from the device to the CPU.

    Within a phase the CPU's operators come first, and the device's can run in one call.
    """
    after: Dict[str, Tuple[int, int]] = {}  # value → (phase of a reader on the device, on the CPU)
    phases: Dict[int, int] = {}
    for index, node in enumerate(program.nodes):
        device = index in device_nodes
        before = [after.get(name, (0, 0)) for name in refs_in(node.arguments)]
        phase = max((pair[0 if device else 1] for pair in before), default=0)
        phases[index] = phase
        after.update((name, (phase, phase + 1 if device else phase)) for name in node.outputs)
    return phases


def segments_of(program: Program, device_nodes: FrozenSet[int]) -> Dict[int, int]:
    """Node index → segment number, for the nodes on the device."""
    return {index: phase for index, phase in phases_of(program, device_nodes).items() if index in device_nodes}


def keep_segments(
    segments: Dict[int, int], minimum_segment_size: int, single_fusion_ratio_threshold: float
) -> FrozenSet[int]:
    """The nodes whose segments are worth compiling.

    A segment below ``minimum_segment_size`` is not; when one holds more than the threshold's share of the
    operators, only that one is.
    """
    sizes: Dict[int, int] = {}
    for segment in segments.values():
        sizes[segment] = sizes.get(segment, 0) + 1
    kept_segments = {segment for segment, size in sizes.items() if size >= minimum_segment_size}
    total = sum(sizes.values())
    dominant = [segment for segment in kept_segments if sizes[segment] > single_fusion_ratio_threshold * total]
    if dominant:
        kept_segments = set(dominant)
    return frozenset(index for index, segment in segments.items() if segment in kept_segments)


def plan_steps(program: Program, device_nodes: FrozenSet[int]) -> List[Step]:
    """The program in running order: for each phase what the CPU does, then the device's subgraph."""
    phases = phases_of(program, device_nodes)
    steps: List[Step] = []
    for phase in range(max(phases.values(), default=0) + 1):
        mine = [index for index in range(len(program.nodes)) if phases[index] == phase]
        host = tuple(program.nodes[index] for index in mine if index not in device_nodes)
        device = tuple(program.nodes[index] for index in mine if index in device_nodes)
        if host:
            steps.append(Step(host, None))
        if device:
            name = f"_NeuronGraph${program.nodes.index(device[0])}"
            steps.append(Step(device, subgraph_of(program, device, name)))
    return steps


def subgraph_of(program: Program, nodes: Sequence[Node], name: str) -> Subgraph:
    """The nodes with what enters and leaves them; parameters are inside, not inputs."""
    made = {output for node in nodes for output in node.outputs}
    read = _unique(name for node in nodes for name in refs_in(node.arguments))
    entering = tuple(name for name in read if name not in made and name not in program.tensors)
    inside = set(map(id, nodes))
    read_outside: Set[str] = set(refs_in(program.output))
    for node in program.nodes:
        if id(node) not in inside:
            read_outside.update(refs_in(node.arguments))
    leaving = tuple(output for node in nodes for output in node.outputs if output in read_outside)
    return Subgraph(name, tuple(nodes), entering, leaving)


def _unique(names: Iterable[str]) -> List[str]:
    return list(dict.fromkeys(names))


def tensors_of(program: Program, nodes: Sequence[Node]) -> Dict[str, torch.Tensor]:
    """Parameters and constants that the nodes read."""
    names = _unique(name for node in nodes for name in refs_in(node.arguments))
    return {name: program.tensors[name] for name in names if name in program.tensors}
