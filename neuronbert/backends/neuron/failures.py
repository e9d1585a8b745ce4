"""Turns what torch-neuron, neuron-cc and the Neuron runtime say when they fail into our errors with advice. Pure.

The texts are those of AWS's troubleshooting guides and of users' reports in aws-neuron-sdk.
"""

import re
from typing import NamedTuple, Optional, Sequence, Tuple, Type

from neuronbert.errors import BackendFailed, BackendUnavailable, NeuronBertError
from neuronbert.hardware.neuron import DRIVER_INSTALL, NEURON_INSTALL


class NumericalError(BackendFailed):
    """The device returned NaN or Inf."""


class PipelineRefused(BackendFailed):
    """neuron-cc refuses to cut this model into so many pipeline stages."""


class Failure(NamedTuple):
    """A documented failure: the pattern of its text, our error class for it, what it means, and what to do about it."""

    pattern: str
    kind: Type[NeuronBertError]
    meaning: str
    advice: str


# The first that matches counts, so the specific ones come before the general ones.
RUNTIME_FAILURES: Tuple[Failure, ...] = (
    Failure(
        r"NeuronCore\(s\) not available|Requested number of NCs: \d+ exceeds",
        BackendUnavailable,
        "another process holds NeuronCores that this one asked for; they are free again when it ends",
        "neuronbert doctor says who holds them; or give each process its own: "
        'eval "$(neuronbert env ARTIFACT --worker 0)"',
    ),
    Failure(
        r"Unable to determine Neuron Driver version",
        BackendUnavailable,
        "the Neuron driver is not installed, or this container was not given the device",
        f"{DRIVER_INSTALL}; in a container --device=/dev/neuron0",
    ),
    Failure(
        r"requires Neuron Driver version|is not compatible with the installed aws-neuron-dkms",
        BackendUnavailable,
        "the Neuron driver and this runtime do not fit each other",
        DRIVER_INSTALL,
    ),
    Failure(
        r"Could not find VNC id|Insufficient number of VNCs",
        BackendUnavailable,
        "the model needs more NeuronCores than this process sees",
        'eval "$(neuronbert env ARTIFACT)", or compile again with fewer --neuroncore-pipeline-cores',
    ),
    Failure(
        r"NEFF version mismatch|status=10\b",
        BackendFailed,
        "the model was compiled by a neuron-cc that is newer than this runtime",
        f"the same versions here as where it was compiled: {NEURON_INSTALL}",
    ),
    Failure(
        r"status=4\b|Allocation Failure",
        BackendFailed,
        "device memory is full",
        "fewer --sequence-length buckets or copies (fewer visible cores), or --mode pipeline over more cores",
    ),
    Failure(
        r"status=1003\b|Numerical Error",
        NumericalError,
        "the device computed NaN or Inf",
        "compile again with --auto-cast-type bf16, whose range is that of fp32",
    ),
    Failure(
        r"status=5\b|Timeout Exceeded",
        BackendFailed,
        "an inference took longer than NEURON_RT_EXEC_TIMEOUT",
        "restart the process; if it happens again, neuronbert doctor and the driver's lines in dmesg",
    ),
    Failure(
        r"status=1002\b|Incorrect Input",
        BackendFailed,
        "the runtime got another shape than the model was compiled for",
        "compile the artifact again",
    ),
    Failure(
        r"status=2\b|message=Invalid",
        BackendFailed,
        "the runtime refuses the model",
        f"compile the artifact again with the versions of this machine, or: {NEURON_INSTALL}",
    ),
    Failure(
        r"Unknown builtin op: neuron::",
        BackendUnavailable,
        "the operators of torch_neuron are not registered in this process",
        "import torch_neuron before torch.jit.load; neuronbert's own loader does",
    ),
    Failure(
        r"Neuron Runtime could not be initialized",
        BackendUnavailable,
        "the Neuron runtime does not start: cores taken, no driver, or variables that contradict each other",
        "neuronbert doctor, and the driver's lines: sudo dmesg | grep -i neuron",
    ),
)

COMPILER_FAILURES: Tuple[Failure, ...] = (
    Failure(
        r"neuroncore-pipeline-cores \(\d+\) may not be suitable",
        PipelineRefused,
        "neuron-cc refuses this number of pipeline cores",
        "--neuroncore-pipeline-cores auto, which tries the next smaller one",
    ),
    Failure(
        r"check that neuron-cc is installed|No module named 'neuron_cc'",
        BackendUnavailable,
        "neuron-cc is not installed",
        NEURON_INSTALL,
    ),
    Failure(
        r"returned: -9\b|signal 9\b|MemoryError|std::bad_alloc",
        BackendFailed,
        "neuron-cc was killed, most likely for memory",
        "compile on a machine with 32 GiB or more (a c5.4xlarge or larger will do); the artifact can be copied to inf1",
    ),
    Failure(
        r"TimeoutExpired|timed out after",
        BackendFailed,
        "neuron-cc took longer than it was given",
        "a larger --compiler-timeout, or none",
    ),
    Failure(
        r"DecodeError: Error parsing message with type 'tensorflow.GraphDef'",
        BackendFailed,
        "the model is larger than the 2 GB that neuron-cc reads",
        "a smaller checkpoint",
    ),
    Failure(
        r"No operations were successfully partitioned|No operator is placed on Neuron runtime",
        BackendFailed,
        "nothing of this model was compiled",
        "read the compiler's log; neuron-cc's reason is there",
    ),
)


def explained(
    text: str, failures: Sequence[Failure], doing: str, also: str = "", otherwise: Optional[str] = None
) -> NeuronBertError:
    """Our error for ``text``: what we were ``doing``, what it means, the original text, and what to do about it.

    ``also`` is searched and quoted too: the runtime writes its reason to stderr and only a summary into the exception.
    """
    quoted = "\n".join(part.strip() for part in (also, without_interpreter(text)) if part.strip())
    for failure in failures:
        if re.search(failure.pattern, quoted):
            return failure.kind(f"{doing}: {failure.meaning}\n{indented(quoted)}", hint=failure.advice)
    return BackendFailed(f"{doing}\n{indented(quoted)}", hint=otherwise or "neuronbert doctor")


def without_interpreter(text: str) -> str:
    """An operator's message, without the frames that TorchScript's interpreter puts around it."""
    if "in the TorchScript interpreter" not in text:
        return text
    match = re.search(r"^(?:\w+Error: )+(.*?)(?:^\s*At:\s*$.*)?\Z", text, re.MULTILINE | re.DOTALL)
    return match.group(1).strip() if match and match.group(1).strip() else text


def indented(text: str, longest: int = 4000) -> str:
    """The text as an indented block; of a very long one only the end, where the reason is."""
    shortened = text if len(text) <= longest else "[…]" + text[-longest:]
    return "\n".join(f"    {line}" for line in shortened.splitlines())
