"""The lines that a trace logs to the logger "Neuron".

Worded as torch-neuron 1.13 does in a log of 5,928 lines: gonsoomoon-ml/lab,
01-inferentia-tts-vits/vits/GonsooTest/compile.out.
"""

import logging
from collections import Counter
from typing import FrozenSet, Sequence

from neuronbert.emulator.graph import Program
from neuronbert.emulator.operators import SUPPORTED

log = logging.getLogger("Neuron")


def before_compilation(program: Program, unsupported: Sequence[str], fused: FrozenSet[int]) -> None:
    """What the compiler will not be given."""
    count = sum(node.kind in unsupported for node in program.nodes)
    if unsupported:
        log.info(
            "There are %d ops of %d different types in the TorchScript that are not compiled by neuron-cc: %s, "
            "(For more information see "
            "https://awsdocs-neuron.readthedocs-hosted.com/en/latest/release-notes/compiler/neuron-cc/neuron-cc-ops/"
            "neuron-cc-ops-pytorch.html)",
            count,
            len(unsupported),
            ", ".join(unsupported),
        )
    else:
        log.info(
            "All operators are compiled by neuron-cc (this does not guarantee that neuron-cc will successfully compile)"
        )
    before = len(program.nodes)
    log.info(
        "Number of arithmetic operators (pre-compilation) before = %d, fused = %d, percent fused = %s%%",
        before,
        len(fused),
        round(100 * len(fused) / max(1, before), 2),
    )


def after_compilation(program: Program, compiled: FrozenSet[int], asked: int, succeeded: int) -> None:
    """What came of it, operator by operator."""
    before = len(program.nodes)
    percent = 100 * len(compiled) / max(1, before)
    log.info(
        "Number of arithmetic operators (post-compilation) before = %d, compiled = %d, percent compiled = %s%%",
        before,
        len(compiled),
        round(percent, 2),
    )
    log.info("The neuron partitioner created %d sub-graphs", asked)
    log.info(
        "Neuron successfully compiled %d sub-graphs, Total fused subgraphs = %d, "
        "Percent of model sub-graphs successfully compiled = %.1f%%",
        succeeded,
        asked,
        100 * succeeded / max(1, asked),
    )
    inside = Counter(program.nodes[index].kind for index in compiled)
    outside = Counter(node.kind for index, node in enumerate(program.nodes) if index not in compiled)
    log.info("Compiled these operators (and operator counts) to Neuron:")
    for kind in sorted(inside):
        log.info(" => %s: %d", kind, inside[kind])
    log.info("Not compiled operators (and operator counts) to Neuron:")
    for kind in sorted(outside):
        log.info(" => %s: %d [%s]", kind, outside[kind], "supported" if kind in SUPPORTED else "not supported")
    if percent <= 50:
        _warn_of_half()


def _warn_of_half() -> None:
    log.warning("torch.neuron.trace was unable to compile > 50% of the operators in the compiled model!")
    log.warning("Please review the torch.neuron.analyze_model output and if you believe you are seeing a failure")
    log.warning(
        "Lodge an issue on https://github.com/aws/aws-neuron-sdk/issues if you believe the model is not compiling "
        "as expected"
    )
