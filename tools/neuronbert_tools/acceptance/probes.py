"""What no source settles about inf1, asked of the device itself: each in a process of its own (probe_child.py).

A probe has the name that its question has in the emulator's table of unknowns (``python -m neuronbert.emulator``);
``pipeline-cores-rounded`` needs a compile, and is a step of steps.py. What happens is recorded, whatever it is: a
refusal is an answer.
"""

import json
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Union

from neuronbert_tools.acceptance.processes import Found, child

# Questions of the table that no run asks: why not.
NOT_ASKED = {
    "exec-timeout": "needs an inference of more than 2 s. One of a BERT-base with 384 tokens takes hundredths of a "
    "second, and a trace unrolls loops: neuron-cc would have to compile a graph a hundred times as large"
}


class Probe(NamedTuple):
    """A question, and how it is asked: models loaded with ``variables``, or else a tiny one traced."""

    unknown: str
    question: str
    variables: Dict[str, str] = {}
    compiler_args: Optional[Union[str, List[str]]] = None
    int64: bool = False

    def ask(self, artifact: Path) -> Found:
        """What a process found that loads ``artifact`` twice, or traces; how it ended, and what it wrote."""
        if self.variables:
            return child("acceptance.probe_child", self.variables, "load", artifact)
        how = json.dumps({"compiler_args": self.compiler_args, "int64": self.int64})
        return child("acceptance.probe_child", {}, "trace", how)


def probes(cores: int) -> List[Probe]:
    """The probes for an instance with as many cores."""
    visible, number, groups = "NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "NEURONCORE_GROUP_SIZES"
    return [
        Probe("group-sizes", "alone: which cores are held", {groups: "1"}),
        Probe("group-sizes", "with visible cores: where two models go", {visible: "0-3", groups: "3,1"}),
        Probe("num-cores-with-group-sizes", "both at once", {number: "4", groups: "1,1,1,1"}),
        Probe("num-cores-list", "a list", {number: "1,1"}),
        Probe("visible-cores-beyond", "what is said", {visible: f"0-{cores}"}),
        Probe(
            "joined-fast-math", "two values in one", compiler_args=["--fast-math", "fp32-cast-matmult no-fast-relayout"]
        ),
        Probe("string-compiler-args", "a string", compiler_args="--fast-math none"),
        Probe("int64-inputs", "an int64 input of a subgraph", int64=True),
        Probe("model-argument", "the graph, and what is stored"),
    ]
