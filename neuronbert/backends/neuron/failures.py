"""Turns what torch-neuron, neuron-cc and the Neuron runtime say when they fail into our errors with advice.

What they are known to say is in known_failures.py, beside this file.
"""

import re
from types import MappingProxyType
from typing import Iterator, Mapping, Match, NamedTuple, Optional, Sequence, Type

from neuronbert.errors import BackendFailed, NeuronBertError
from neuronbert.hardware.neuron import PACKAGE_COMMANDS, package_manager


class NumericalError(BackendFailed):
    """The device returned NaN or Inf."""


class PipelineRefused(BackendFailed):
    """neuron-cc refuses to cut this model into so many pipeline stages."""


class Failure(NamedTuple):
    """A known failure: the pattern of its text, our error class for it, what it means, and what to do about it.

    In ``meaning`` and ``advice``, ``{install_driver}`` and its like stand for commands of the system's package manager
    (hardware/neuron.py), and ``{NAME}`` for what the pattern's group NAME has found, or for its entry in ``unsaid``.
    """

    name: str  # of its section in docs/neuron-errors.md
    pattern: str
    kind: Type[NeuronBertError]
    meaning: str
    advice: str
    comes_and_goes: bool = False  # has been cured by doing the same once more
    unsaid: Mapping[str, str] = MappingProxyType({})  # instead of what a group of the pattern has not found


def known_failure(text: str, failures: Sequence[Failure]) -> Optional[Failure]:
    """The first of ``failures`` whose pattern ``text`` has, in this text's and system's words.

    In their tables the specific ones come first. In a pattern ``^`` is the beginning of any line.
    """
    for failure in failures:
        match = next(matches(failure, text), None)
        if match:
            return worded(failure, package_manager(), match.groupdict())
    return None


def worded(failure: Failure, manager: str, said: Mapping[str, Optional[str]] = MappingProxyType({})) -> Failure:
    """``failure`` with its placeholders filled: by the commands of a package manager, and by what the text has said."""
    found = {name: value for name, value in said.items() if value is not None}
    values = {**PACKAGE_COMMANDS[manager]._asdict(), **failure.unsaid, **found}
    return failure._replace(meaning=failure.meaning.format(**values), advice=failure.advice.format(**values))


def matches(failure: Failure, text: str) -> Iterator[Match[str]]:
    """Where ``text`` has the pattern of ``failure``."""
    return re.finditer(failure.pattern, text, re.MULTILINE)


def explained(
    text: str, failures: Sequence[Failure], doing: str, also: str = "", otherwise: Optional[str] = None
) -> NeuronBertError:
    """Our error for ``text``: what we were ``doing``, what it means, the original text, and what to do about it.

    ``also`` is searched and quoted too: the runtime writes its reason to stderr and only a summary into the exception.
    """
    quoted = "\n".join(part.strip() for part in (also, without_interpreter(text)) if part.strip())
    failure = known_failure(quoted, failures)
    if failure is not None:
        return failure.kind(f"{doing}: {failure.meaning}\n{indented(quoted)}", hint=failure.advice)
    return BackendFailed(f"{doing}\n{indented(quoted)}".rstrip(), hint=otherwise or "neuronbert doctor")


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
