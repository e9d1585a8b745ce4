"""Imports torch_neuron, traces a model with it, and reads from the graph what was compiled; compile_job.py asks here.

The only module that imports torch_neuron, be it the real one or the emulator's.
"""

import importlib
import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from neuronbert.backends.base import Recipe
from neuronbert.backends.neuron.failures import known_failure
from neuronbert.backends.neuron.known_failures import IMPORT_FAILURES
from neuronbert.checkpoint.families import Tensor, TorchModel
from neuronbert.errors import BackendUnavailable, MissingLibrary
from neuronbert.hardware.machine import library_version
from neuronbert.hardware.neuron import neuron_install_command, neuron_install_hint

# What must not run on the CPU: the work that the instance is paid for. Embeddings and the like do belong there.
DEVICE_OPERATORS = frozenset(
    "aten::" + name
    for name in "linear matmul mm bmm addmm baddbmm einsum softmax _softmax scaled_dot_product_attention".split()
)


def import_torch_neuron() -> Any:
    """The torch_neuron module; BackendUnavailable with its own words where it cannot be imported."""
    try:
        module = importlib.import_module("torch_neuron")
    except MissingLibrary:  # what the emulator needs
        raise
    except (ImportError, AttributeError, TypeError, OSError) as error:
        # Its text says more than "not installed" would: the placeholder on PyPI raises "WRONG PACKAGE", others what a
        # library of another release raises.
        known = known_failure(str(error), IMPORT_FAILURES)
        if known is None and not isinstance(error, ImportError):
            raise
        words, hint = (f": {known.meaning}", known.advice) if known else ("", neuron_install_hint())
        raise BackendUnavailable(f"torch_neuron cannot be imported: {error}{words}", hint=hint) from error
    if not hasattr(module, "trace"):
        raise BackendUnavailable("torch_neuron is installed and has no trace function", hint=neuron_install_command())
    return module


def import_tensorflow() -> None:
    """TensorFlow, where it is installed: to be called before torch is imported in a process that compiles.

    AWS's tutorials begin so, "to workaround a protobuf version conflict issue". neuron-cc[tensorflow] brings it; a
    process that only answers needs none, and neither does the emulator.
    """
    if library_version("torch-neuron") and importlib.util.find_spec("tensorflow"):
        importlib.import_module("tensorflow")


class CompileReport(NamedTuple):
    """What a trace came to: how much of it is on the device, and what is not."""

    percent_compiled: Optional[float]  # of the operators, from the compiler's log
    subgraphs: int  # neuron::forward nodes in the graph
    operators_on_cpu: Dict[str, int]

    def fallback(self) -> List[str]:
        """Work for the device that was left on the CPU, in words; empty when all is well."""
        if not self.subgraphs:
            return ["the traced graph has no neuron::forward node: all of it would run on the CPU"]
        left = {name: count for name, count in self.operators_on_cpu.items() if name in DEVICE_OPERATORS}
        if not left:
            return []
        named = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
        percent = (
            "" if self.percent_compiled is None else f" ({self.percent_compiled:.2f} % of the operators are compiled)"
        )
        return [f"{named} would run on the CPU{percent}"]


def trace(model: TorchModel, inputs: Tuple[Tensor, ...], recipe: Recipe, folder: Path) -> TorchModel:
    """torch_neuron.trace of a model in eval mode, called with positional inputs and returning a tuple.

    ``fallback=False`` would refuse every BERT, whose aten::embedding never compiles: what fell back is read from
    the graph instead (``report_of``).
    """
    options: Dict[str, Any] = {"compiler_args": list(recipe["compiler_args"]), "compiler_workdir": str(folder)}
    timeout_s = recipe.get("compiler_timeout_s")
    if timeout_s is not None:  # documented as an int; whether None means no limit is not said
        options["compiler_timeout"] = int(timeout_s)
    return import_torch_neuron().trace(model.eval(), inputs, **options)


def report_of(traced: TorchModel, log: str) -> CompileReport:
    """The report of a traced module, from its graph and the log of its compilation.

    Only the kinds of the graph's nodes are looked at: the model argument of a neuron::forward node is of a class that
    torch_neuron brings along (netron issue 930).
    """
    kinds = Counter(node.kind() for node in _nodes(traced.inlined_graph))
    percent = re.findall(r"\(post-compilation\).*percent compiled = ([0-9.]+)%", log)
    return CompileReport(
        float(percent[-1]) if percent else None,
        sum(count for kind, count in kinds.items() if kind.startswith("neuron::forward")),
        {kind: count for kind, count in sorted(kinds.items()) if kind.startswith("aten::")},
    )


def _nodes(block: Any) -> Iterator[Any]:  # of torch._C.Graph and its Blocks
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
