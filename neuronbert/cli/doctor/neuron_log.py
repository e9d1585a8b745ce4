"""What a log of Neuron's software says, by the neuron backend's known failures, for ``neuronbert doctor --log``."""

from typing import Dict, Iterable, List, NamedTuple, Sequence

from neuronbert.backends.neuron.failures import known_failure
from neuronbert.backends.neuron.known_failures import ALL_FAILURES

LONGEST_LINE = 200  # characters of a line that is shown


class Diagnosis(NamedTuple):
    """A known failure that a log has: the first line that says it, what it means, and what to do about it."""

    name: str
    line: str
    meaning: str
    advice: str


def diagnose(log: Iterable[str]) -> List[Diagnosis]:
    """The known failures in the lines of a log, each once, the specific ones first: the general follow from them."""
    lines: Dict[str, str] = {}
    for line in log:
        failure = known_failure(line, ALL_FAILURES)
        if failure is not None:
            lines.setdefault(failure.name, line.strip())
    found = [failure for failure in ALL_FAILURES if failure.name in lines]
    return [Diagnosis(one.name, lines[one.name], one.meaning, one.advice) for one in found]


def render(diagnoses: Sequence[Diagnosis]) -> str:
    """The diagnoses as text for a person."""
    if not diagnoses:
        return "nothing in this log is a known failure"
    parts = []
    for one in diagnoses:
        shown = one.line if len(one.line) <= LONGEST_LINE else one.line[:LONGEST_LINE] + "…"
        parts.append(f"{one.meaning}\n    {shown}\n  try: {one.advice}")
    return "\n".join(parts)
