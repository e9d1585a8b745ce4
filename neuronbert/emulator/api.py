"""The functions that ``torch.neuron`` offers, with the documented arguments."""

import enum
import importlib
import logging
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import torch

from neuronbert.emulator import calls, compiled_ops, jit_load
from neuronbert.emulator.graph import Value, program_of
from neuronbert.emulator.neuron_cc import argument_list
from neuronbert.emulator.operators import SUPPORTED, supported_operations
from neuronbert.emulator.partition import NodeView
from neuronbert.emulator.runtime import Runtime
from neuronbert.emulator.timed import interceptor_of
from neuronbert.emulator.tracing import TraceOptions, trace_module
from neuronbert.hardware.libraries import optional_imports

log = logging.getLogger("Neuron")

_runtime: Optional[Runtime] = None


class Optimization(enum.Enum):
    """Members of ``optimizations``; the documentation names one."""

    FLOAT32_TO_FLOAT16 = "FLOAT32_TO_FLOAT16"


def set_runtime(runtime: Runtime) -> None:
    """The machine that the functions of this module speak for."""
    global _runtime
    _runtime = runtime
    compiled_ops.register(runtime)
    calls.install()
    jit_load.install()
    interceptor = interceptor_of(runtime)
    if interceptor is not None:  # otherwise a recording that has begun already stays in place
        calls.intercept(interceptor)


def runtime() -> Runtime:
    """What ``set_runtime`` was given, which importing torch_neuron does."""
    assert _runtime is not None, "torch_neuron is not imported"
    return _runtime


def trace(
    model: Callable[..., Value],
    example_inputs: Union[torch.Tensor, Tuple[torch.Tensor, ...]],
    fallback: bool = True,
    minimum_segment_size: int = 2,
    subgraph_builder_function: Optional[Callable[[NodeView], bool]] = None,
    skip_compiler: bool = False,
    compiler_workdir: Optional[str] = None,
    dynamic_batch_size: bool = False,
    compiler_timeout: Optional[int] = None,
    single_fusion_ratio_threshold: float = 0.6,
    compiler_args: Union[str, Sequence[str], None] = None,
    optimizations: Optional[Sequence[Optimization]] = None,
    separate_weights: bool = False,
    verbose: Union[int, str, None] = None,
    **named: Any,
) -> torch.jit.ScriptModule:
    """Compiles the parts of a model that the device can run (reference §1.1).

    ``named`` goes on to ``torch.jit.trace``. ``separate_weights`` is accepted: the emulator has no 2 GB limit.
    """
    arguments = argument_list(compiler_args or [], runtime().settings.shown)
    if optimizations and Optimization.FLOAT32_TO_FLOAT16 in optimizations:
        arguments += ["--fp32-cast", "all-fp16"]
    options = TraceOptions(
        arguments,
        compiler_timeout,
        None if compiler_workdir is None else Path(compiler_workdir),
        (lambda node: False) if skip_compiler else subgraph_builder_function,
        minimum_segment_size,
        single_fusion_ratio_threshold,
        fallback,
        dynamic_batch_size,
        runtime().settings.shown,
    )
    if not logging.getLogger().handlers and not log.handlers:
        logging.basicConfig(level=logging.INFO)
        log.setLevel(logging.INFO)
    return trace_module(model, example_inputs, options, runtime().faults, named)


def analyze_model(
    model: Callable[..., Value], example_inputs: Union[torch.Tensor, Tuple[torch.Tensor, ...]], **named: Any
) -> None:
    """Logs which operators of a model are supported (reference §1.7)."""
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    program = program_of(torch.jit.trace(model, inputs, check_trace=False, **named), inputs)
    kinds = [node.kind for node in program.nodes]
    supported = [kind for kind in kinds if kind in SUPPORTED]
    log.info("The following operations are currently supported in torch-neuron for this model:")
    for kind in sorted(set(supported)):
        log.info(kind)
    log.info("The following operations are currently not supported in torch-neuron for this model:")
    for kind in sorted(set(kinds) - set(supported)):
        log.info(kind)
    primitives = len(program.tensors) + len(program.inputs)
    log.info(_percentage("all operations (including primitives)", len(supported) + primitives, len(kinds) + primitives))
    log.info(_percentage("arithmetic operations", len(supported), len(kinds)))


def _percentage(what: str, part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.2f}% of {what} ({part} of {whole}) are supported"


def get_supported_operations() -> List[str]:
    """Operators and primitives that can be compiled."""
    return supported_operations()


def is_available() -> bool:
    """True when the device can be used by this process."""
    try:
        with optional_imports("emulator"):
            importlib.import_module("torch_neuron")
        runtime().initialize()
    except RuntimeError:
        return False
    return True
