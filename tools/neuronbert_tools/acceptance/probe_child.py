"""Inside a child: loads models or traces one with torch_neuron itself, as no code of ours stands between for probes.py.

Its arguments: load ARTIFACT | trace JSON
"""

import json
import os
import shutil
import subprocess
from typing import Any, Dict, List, Sequence

from neuronbert.artifact.manifest import load_artifact
from neuronbert.backends import load_backend
from neuronbert.backends.child import python_command
from neuronbert.backends.neuron.backend import FILE_NAME, WARM_UP_VOCABULARY
from neuronbert.backends.neuron.tracing import import_torch_neuron
from neuronbert.backends.tracing import example_inputs
from neuronbert.hardware.neuron import NEURON_TOOLS
from neuronbert_tools.acceptance.processes import document_with, print_found

GRAPH_CHARACTERS = 4000


def tool_command(name: str, *arguments: str) -> List[str]:
    """How a tool of Neuron's is started; the emulator's where that is what runs."""
    if os.environ.get("NEURONBERT_EMULATE"):
        return python_command("neuronbert.emulator.__main__", name, *arguments)
    return [shutil.which(name) or f"{NEURON_TOOLS}/{name}", *arguments]


def neuron_ls() -> Any:
    """``neuron-ls -j``, whose log lines may be on stdout, too."""
    done = subprocess.run(tool_command("neuron-ls", "-j"), stdout=subprocess.PIPE, check=True)
    return document_with("neuron_device", done.stdout.decode(), opening="[")


def neuron_monitor() -> Any:
    """The first report of neuron-monitor, which writes one a line for ever."""
    with subprocess.Popen(tool_command("neuron-monitor"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    return json.loads(line)


def load(artifact: str) -> Dict[str, Any]:
    """Load the artifact's first variant twice and run both; which cores are held and used then."""
    import torch

    loaded = load_artifact(artifact)
    variant = loaded.variants[0]
    arrays = example_inputs(WARM_UP_VOCABULARY, variant["batch_size"], variant["sequence_length"])
    inputs = [torch.from_numpy(arrays[name]) for name in variant["recipe"]["inputs"]]
    path = loaded.folder / "variants" / variant["name"] / FILE_NAME
    models = [torch.jit.load(str(path)) for _ in range(2)]
    for model in models:
        model(*inputs)
    return {"loaded": len(models), "neuron_ls": neuron_ls(), "neuron_monitor": neuron_monitor()}


def trace(how: str) -> Dict[str, Any]:
    """Trace a tiny model with the arguments given; its graph and what it stores."""
    import torch

    class Tiny(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, values: Any, others: Any) -> Any:
            return self.second(torch.relu(self.first(values)) + torch.relu(others))

    chosen = json.loads(how)
    others = torch.ones(1, 8, dtype=torch.int64 if chosen["int64"] else torch.float32)
    options = {} if chosen["compiler_args"] is None else {"compiler_args": chosen["compiler_args"]}
    traced = import_torch_neuron().trace(Tiny().eval(), (torch.ones(1, 8), others), **options)
    stored = {name: str(value.dtype) for name, value in traced.state_dict().items()}
    return {"graph": str(traced.inlined_graph)[:GRAPH_CHARACTERS], "stored": stored}


def main(arguments: Sequence[str]) -> None:
    """The child; what it found on stdout, among whatever libraries print there."""
    mode, argument = arguments
    load_backend("neuron")  # from here on the emulator, if it was asked for, stands in for torch_neuron
    import_torch_neuron()  # without it torch.jit.load knows no neuron:: operator
    print_found({"load": load, "trace": trace}[mode](argument))
