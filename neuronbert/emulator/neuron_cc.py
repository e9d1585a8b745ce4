"""The emulated neuron-cc command: checks its arguments as documented and turns a subgraph into a NEFF."""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

import torch

from neuronbert.emulator.arithmetic import BF16, FP16, Policy
from neuronbert.emulator.graph import Program
from neuronbert.emulator.neff import Neff, build_neff
from neuronbert.emulator.operators import MATRIX_PRODUCTS
from neuronbert.emulator.partition import Subgraph
from neuronbert.emulator.unknowns import Shown, default_behaviour
from neuronbert.hardware.cores import MAX_CORES, why_too_long

VERSION = "1.24.0.0"

CASTS = {
    "fp32-cast-all": (True, BF16),
    "fp32-cast-all-fp16": (True, FP16),
    "fp32-cast-matmult": (False, BF16),
    "fp32-cast-matmult-bf16": (False, BF16),
    "fp32-cast-matmult-fp16": (False, FP16),
}
RELAYOUT_OPTIONS = {"fast-relayout": True, "no-fast-relayout": False}
PRESETS = {"all": ("fp32-cast-all", True), "none": ("fp32-cast-matmult-bf16", False)}


class CompilerFailed(RuntimeError):
    """neuron-cc ended with an error; ``returncode`` is what the shell would see."""

    def __init__(self, message: str, returncode: int = 1):
        super().__init__(message)
        self.returncode = returncode


class CompilerOptions(NamedTuple):
    """What the arguments mean."""

    pipeline_cores: int
    policy: Policy


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CompilerFailed(f"neuron-cc: error: {message}", 2)


def argument_list(compiler_args: Union[str, Sequence[str]], shown: Shown = default_behaviour) -> List[str]:
    """``compiler_args`` of trace as the arguments of a command; TypeError for anything but a list of strings.

    A string is cut up or refused, as ``shown`` says: no source settles it (unknowns.py).
    """
    if isinstance(compiler_args, str) and shown("string-compiler-args") == "split":
        return shlex.split(compiler_args)
    if isinstance(compiler_args, str) or not all(isinstance(argument, str) for argument in compiler_args):
        raise TypeError(f"compiler_args must be a list of strings, not {compiler_args!r}")
    return list(compiler_args)


def parse_arguments(arguments: Sequence[str], shown: Shown = default_behaviour) -> CompilerOptions:
    """The options of a command line; CompilerFailed for what neuron-cc would not take."""
    if shown("joined-fast-math") == "split":
        arguments = _fast_math_split(arguments)
    parsed = _parser().parse_args(list(arguments))
    cores = parsed.pipeline_cores
    if not 1 <= cores <= MAX_CORES:
        raise CompilerFailed(f"neuron-cc: error: argument --neuroncore-pipeline-cores: invalid value: {cores}", 2)
    cast, relayout = _fast_math(parsed.fast_math)
    everything, dtype = CASTS["fp32-cast-" + parsed.fp32_cast if parsed.fp32_cast else cast]
    return CompilerOptions(cores, Policy(everything, dtype, relayout, parsed.saturate))


def _fast_math_split(arguments: Sequence[str]) -> List[str]:
    """The arguments with values of --fast-math that are joined by spaces taken apart."""
    split: List[str] = []
    option = ""
    for argument in arguments:
        option = argument if argument.startswith("-") else option
        split += argument.split() if option == "--fast-math" and argument != option else [argument]
    return split


def _parser() -> _Parser:
    parser = _Parser(prog="neuron-cc", allow_abbrev=False, add_help=False)
    # --num-neuroncores is the name of before 2020-11-17, still accepted.
    parser.add_argument("--neuroncore-pipeline-cores", "--num-neuroncores", dest="pipeline_cores", type=int, default=1)
    parser.add_argument("--fast-math", nargs="+", default=["all"], choices=[*PRESETS, *CASTS, *RELAYOUT_OPTIONS])
    parser.add_argument("--fp32-cast", choices=["all", "matmult", "matmult-bf16", "matmult-fp16", "all-fp16"])
    parser.add_argument("--enable-saturate-infinity", dest="saturate", action="store_true")
    for accepted in (
        "--enable-fast-loading-neuron-binaries",
        "--enable-fast-context-switch",
        "--static-weights",
        "-O2",
    ):
        parser.add_argument(accepted, action="store_true")
    parser.add_argument("--batching_en", action="store_true")
    parser.add_argument("--verbose")
    parser.add_argument("--output")
    return parser


def _fast_math(values: Sequence[str]) -> Tuple[str, bool]:
    """(cast, relayout) of --fast-math: presets exclude each other, so do casts and relayouts; the specific win."""
    for group in (PRESETS, CASTS, RELAYOUT_OPTIONS):
        chosen = sorted({value for value in values if value in group})
        if len(chosen) > 1:
            raise CompilerFailed(
                f"neuron-cc: error: argument --fast-math: {' and '.join(chosen)} exclude each other", 2
            )
    preset = next((value for value in values if value in PRESETS), "all")
    cast, relayout = PRESETS[preset]
    cast = next((value for value in values if value in CASTS), cast)
    return cast, next((RELAYOUT_OPTIONS[value] for value in values if value in RELAYOUT_OPTIONS), relayout)


def io_config(program: Program, subgraph: Subgraph) -> str:
    """The --io-config that torch-neuron passes."""
    inputs = {
        f"{index}:0": [list(program.specs[name].shape), str(program.specs[name].dtype).split(".")[1]]
        for index, name in enumerate(subgraph.inputs)
    }
    last = subgraph.nodes[-1]
    outputs = [
        f"{last.scope or 'Graph'}/{last.kind.replace('::', '_')}:{index}" for index in range(len(subgraph.outputs))
    ]
    return json.dumps({"inputs": inputs, "outputs": outputs})


def command_line(program: Program, subgraph: Subgraph, folder: Path, arguments: Sequence[str]) -> List[str]:
    """The command that torch-neuron runs: the caller's arguments before --verbose (aws-neuron-sdk issue 618)."""
    command = [str(Path(sys.executable).with_name("neuron-cc")), "compile", str(folder / "graph_def.pb")]
    command += ["--framework", "TENSORFLOW", "--pipeline", "compile", "SaveTemps"]
    command += ["--output", str(folder / "graph_def.neff"), "--io-config", io_config(program, subgraph)]
    return [*command, *arguments, "--verbose", "35"]


def compile_subgraph(
    program: Program,
    subgraph: Subgraph,
    arguments: Sequence[str],
    *,
    folder: Path,
    dynamic_batch_size: bool = False,
    fault: Optional[str] = None,
    deadline: Optional[float] = None,
    shown: Shown = default_behaviour,
) -> bytes:
    """The NEFF of a subgraph; leaves graph_def.pb, .neff and .neuron-cc.log in ``folder``.

    CompilerFailed when neuron-cc would fail; TimeoutError when ``deadline`` (of time.monotonic) has passed.
    """
    log: List[str] = [f"neuron-cc {VERSION}+emulated", f"arguments: {list(arguments)}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph_def.pb").write_bytes(_describe(program, subgraph).encode())
    try:
        _strike(fault, deadline)
        neff = _compile(program, subgraph, arguments, dynamic_batch_size, shown)
        log.append("Compiler status PASS")
    except (CompilerFailed, TimeoutError) as error:
        log += [str(error), "Compiler status ERROR"]
        raise
    finally:
        (folder / "graph_def.neuron-cc.log").write_text("\n".join(log) + "\n", encoding="utf-8")
    payload = build_neff(neff)
    (folder / "graph_def.neff").write_bytes(payload)
    if deadline is not None and time.monotonic() > deadline:
        raise TimeoutError("compiler_timeout exceeded")
    return payload


def _compile(
    program: Program,
    subgraph: Subgraph,
    arguments: Sequence[str],
    dynamic_batch_size: bool,
    shown: Shown,
) -> Neff:
    options = parse_arguments(arguments, shown)
    if shown("int64-inputs") == "refused" and any(program.specs[name].dtype == torch.int64 for name in subgraph.inputs):
        raise CompilerFailed("An Internal Compiler Error has occurred")
    why = why_too_long(options.pipeline_cores, sum(node.kind in MATRIX_PRODUCTS for node in subgraph.nodes))
    if why:
        raise CompilerFailed(why)
    cores = options.pipeline_cores
    if shown("pipeline-cores-rounded") == "to-fours" and cores > 1:
        cores = 4 * -(-cores // 4)
    return Neff.from_subgraph(program, subgraph, options.policy, cores, dynamic_batch_size)


def _strike(fault: Optional[str], deadline: Optional[float]) -> None:
    if fault == "compile-failure":
        raise CompilerFailed("An Internal Compiler Error has occurred")
    if fault == "compile-killed":
        raise CompilerFailed("Compile command returned: -9", -9)
    while fault == "compile-hang":
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError("compiler_timeout exceeded")
        time.sleep(0.02)


def _describe(program: Program, subgraph: Subgraph) -> str:
    """The graph as text, for a person who looks into the work folder."""
    description: Dict[str, object] = {
        "inputs": {name: list(program.specs[name].shape) for name in subgraph.inputs},
        "outputs": list(subgraph.outputs),
        "nodes": [f"{', '.join(node.outputs)} = {node.operator}" for node in subgraph.nodes],
    }
    return json.dumps(description, indent=1)
