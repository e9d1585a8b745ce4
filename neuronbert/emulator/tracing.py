"""torch.neuron.trace: traces, partitions, compiles each subgraph, and assembles the pieces into one module."""

import logging
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch

from neuronbert.emulator import compiled_ops, trace_log
from neuronbert.emulator.faults import COMPILE, FaultPlan
from neuronbert.emulator.graph import Node, Program, UntraceableGraph, Value, invoke, program_of, refs_in, substitute
from neuronbert.emulator.neuron_cc import CompilerFailed, command_line, compile_subgraph
from neuronbert.emulator.operators import SUPPORTED
from neuronbert.emulator.partition import (
    NodeView,
    Step,
    Subgraph,
    eligible_nodes,
    keep_segments,
    plan_steps,
    segments_of,
)
from neuronbert.emulator.unknowns import Shown

log = logging.getLogger("Neuron")

NOTHING_COMPILED = "No operations were successfully partitioned and compiled to neuron for this model - aborting trace!"
CC_MISSING = (
    "Please check that neuron-cc is installed and working properly. You can install neuron-cc using "
    "'python3 -m pip install neuron-cc[tensorflow] -U --extra-index-url=https://pip.repos.neuron.amazonaws.com'"
)
# Older releases say "Compile command returned: -9" only (aws-neuron-sdk issue 439; 431 announces this line). What it
# says of SIG_ABORT is in issue 618; what it says of SIG_KILL is from torch_neuronx, which says the rest alike.
CC_KILLED = (
    "The neuron-cc (neuron compiler) process was killed (SIG_KILL).  This typically happens when there is "
    "insufficient memory to compile and the linux Out Of Memory (OOM) killer terminates the compiler."
)


class TraceOptions(NamedTuple):
    """The documented arguments of trace that steer partition and compiler."""

    compiler_args: Sequence[str]
    compiler_timeout: Optional[float]
    compiler_workdir: Optional[Path]
    subgraph_builder_function: Optional[Callable[[NodeView], bool]]
    minimum_segment_size: int
    single_fusion_ratio_threshold: float
    fallback: bool
    dynamic_batch_size: bool
    shown: Shown  # for what no source settles


def trace_module(
    model: Callable[..., Value],
    example_inputs: Union[torch.Tensor, Tuple[torch.Tensor, ...]],
    options: TraceOptions,
    faults: FaultPlan,
    named: Dict[str, Any],
) -> torch.jit.ScriptModule:
    """A ScriptModule whose supported operators are neuron::forward_v2_* calls; ``named`` goes to torch.jit.trace.

    torch checks the trace unless it is told not to: its warnings are in torch-neuron's own log (trace_log.py).
    """
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    traced = torch.jit.trace(model, inputs, **named)
    try:
        program = program_of(traced, inputs)
    except UntraceableGraph as error:
        log.warning("torch.neuron.trace error: %s", error)
        raise RuntimeError(NOTHING_COMPILED) from error
    fault = faults.due(COMPILE)
    device_nodes = _device_nodes(program, options, fault)
    if not segments_of(program, device_nodes):
        log.warning("No operator is placed on Neuron runtime; returning a CPU trace")
        return traced
    payloads, compiled = _compile_all(program, device_nodes, options, fault)
    if not payloads:
        raise RuntimeError(NOTHING_COMPILED)
    trace_log.after_compilation(
        program, compiled, asked=len(_subgraphs(program, device_nodes)), succeeded=len(payloads)
    )
    return _assemble(program, compiled, payloads, inputs)


def _device_nodes(program: Program, options: TraceOptions, fault: Optional[str]) -> FrozenSet[int]:
    """The nodes for the device, after the rules about segment sizes."""
    device_nodes = eligible_nodes(program, SUPPORTED, options.subgraph_builder_function)
    unsupported = sorted({node.kind for node in program.nodes if node.kind not in SUPPORTED})
    if unsupported and not options.fallback:
        raise AttributeError(f"operators not supported by neuron-cc, and fallback is off: {', '.join(unsupported)}")
    if fault == "fallback":
        device_nodes = frozenset(
            index for index in device_nodes if index < sorted(device_nodes)[len(device_nodes) // 2]
        )
    worth_compiling = keep_segments(
        segments_of(program, device_nodes), options.minimum_segment_size, options.single_fusion_ratio_threshold
    )
    trace_log.before_compilation(program, unsupported, worth_compiling)
    return worth_compiling


def _subgraphs(program: Program, device_nodes: FrozenSet[int]) -> List[Subgraph]:
    return [step.subgraph for step in plan_steps(program, device_nodes) if step.subgraph is not None]


def _compile_all(
    program: Program, device_nodes: FrozenSet[int], options: TraceOptions, fault: Optional[str]
) -> Tuple[Dict[str, bytes], FrozenSet[int]]:
    """Payloads by subgraph name, and the nodes in them; what fails falls back to the CPU, with warnings.

    Operators that fell back can change where the other segments begin and end, hence the loop.
    """
    indexes = {id(node): index for index, node in enumerate(program.nodes)}
    done: Dict[Tuple[int, ...], bytes] = {}
    while True:
        wanted = {
            tuple(indexes[id(node)] for node in graph.nodes): graph for graph in _subgraphs(program, device_nodes)
        }
        failed: List[int] = []
        for members, subgraph in wanted.items():
            if members not in done:
                payload = _compiled_or_fallen_back(program, subgraph, options, fault)
                failed += members if payload is None else ()
                done.update({} if payload is None else {members: payload})
        if not failed:
            return {subgraph.name: done[members] for members, subgraph in wanted.items()}, device_nodes
        device_nodes = device_nodes - frozenset(failed)


def _compiled_or_fallen_back(
    program: Program, subgraph: Subgraph, options: TraceOptions, fault: Optional[str]
) -> Optional[bytes]:
    try:
        return _compile_subgraph(program, subgraph, options, fault)
    except CompilerFailed as error:
        message = f"neuron-cc failed with the following command line call:\n{error}"
        if not options.fallback:
            raise subprocess.SubprocessError(message) from error
        log.warning("torch.neuron.trace failed on %s; falling back to native python function call", subgraph.name)
        log.error(message)
        return None


def _compile_subgraph(program: Program, subgraph: Subgraph, options: TraceOptions, fault: Optional[str]) -> bytes:
    folder = (
        Path(tempfile.mkdtemp()) if options.compiler_workdir is None else options.compiler_workdir / subgraph.name[1:]
    )
    log_note = "" if options.compiler_workdir is None else f"; log file is at {folder / 'graph_def.neuron-cc.log'}"
    command = command_line(program, subgraph, folder, options.compiler_args)
    if fault == "compiler-missing":
        raise CompilerFailed(CC_MISSING)
    log.info("Compiling function %s with neuron-cc%s", subgraph.name, log_note)
    log.info("Compiling with command line: '%s'", " ".join(command))
    deadline = None if options.compiler_timeout is None else time.monotonic() + options.compiler_timeout
    try:
        payload = compile_subgraph(
            program,
            subgraph,
            options.compiler_args,
            folder=folder,
            dynamic_batch_size=options.dynamic_batch_size,
            fault=fault,
            deadline=deadline,
            shown=options.shown,
        )
        # The real compiler says so itself, among its dots; stdout is kept for results.
        print("Compiler status PASS", file=sys.stderr)
        return payload
    except TimeoutError:
        assert options.compiler_timeout is not None
        raise subprocess.TimeoutExpired(" ".join(command), options.compiler_timeout) from None
    except CompilerFailed as error:
        if error.returncode == -9:
            log.warning(CC_KILLED)
        log.info("Compile command returned: %s", error.returncode)
        quoted = " ".join(map(shlex.quote, command))
        raise CompilerFailed(f"{quoted}\n{error}", error.returncode) from error
    finally:
        if options.compiler_workdir is None:
            shutil.rmtree(folder)


# ---------------------------------------------------------------------------- the module that comes out


class _Assembled(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Runs the CPU's operators itself and calls neuron::forward_v2_* for the rest; made only to be traced."""

    def __init__(self, program: Program, steps: Sequence[Step], payloads: Dict[str, bytes]):
        super().__init__()
        self._program = program
        self._steps = steps
        self._buffer_names: Dict[str, str] = {}
        host = [node for step in steps if step.subgraph is None for node in step.nodes]
        read = set(refs_in([list(node.arguments) for node in host])) | set(refs_in(program.output))
        for name in sorted(read & set(program.tensors)):
            self._buffer_names[name] = name.replace(".", "_")
            self.register_buffer(self._buffer_names[name], program.tensors[name].detach())
        for name, payload in payloads.items():
            self.register_buffer(_buffer_name(name), torch.frombuffer(bytearray(payload), dtype=torch.uint8))

    def forward(self, *inputs: torch.Tensor) -> Value:
        values: Dict[str, Value] = {name: getattr(self, buffer) for name, buffer in self._buffer_names.items()}
        values.update(zip(self._program.inputs, inputs))
        for step in self._steps:
            if step.subgraph is None:
                for node in step.nodes:
                    _run_on_host(node, values)
            else:
                payload = getattr(self, _buffer_name(step.subgraph.name))
                names = step.subgraph.outputs
                values.update(
                    zip(names, compiled_ops.call([values[name] for name in step.subgraph.inputs], payload, len(names)))
                )
        return substitute(self._program.output, values.__getitem__)


def _buffer_name(subgraph_name: str) -> str:
    return subgraph_name.lstrip("_").replace("$", "_")


def _run_on_host(node: Node, values: Dict[str, Value]) -> None:
    result = invoke(node.operator, substitute(list(node.arguments), values.__getitem__))
    values.update(zip(node.outputs, result if node.returns_list else [result]))


def _assemble(
    program: Program,
    compiled: FrozenSet[int],
    payloads: Dict[str, bytes],
    inputs: Tuple[torch.Tensor, ...],
) -> torch.jit.ScriptModule:
    module = _Assembled(program, plan_steps(program, compiled), payloads).eval()
    with compiled_ops.compiling(), torch.no_grad():
        return torch.jit.trace(module, inputs, check_trace=False, strict=not _holds_dict(program.output))


def _holds_dict(output: Value) -> bool:
    if isinstance(output, dict):
        return True
    return isinstance(output, (list, tuple)) and any(_holds_dict(inner) for inner in output)
