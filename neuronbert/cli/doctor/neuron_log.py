"""What a log of Neuron's software says, by the neuron backend's known failures, for ``neuronbert doctor --log``."""

from typing import Dict, Iterable, Iterator, List, Match, NamedTuple, Sequence, Set

from neuronbert.backends.neuron.failures import matches, worded
from neuronbert.backends.neuron.known_failures import ALL_FAILURES
from neuronbert.hardware.neuron import package_manager

SHOWN_CHARACTERS = 200  # of a line
# A log is searched in blocks of whole lines: line by line, the calls would take longer than the searching. A line
# without end is searched in pieces, each with the beginning of the next, where a text may be cut in two.
BLOCK_CHARACTERS = 100_000
OVERLAP_CHARACTERS = 500


class Diagnosis(NamedTuple):
    """A known failure that a log has: the first line that says it, what it means, and what to do about it."""

    name: str
    line: str  # of a very long one what is around the text of the failure
    meaning: str
    advice: str


def diagnose(log: Iterable[str]) -> List[Diagnosis]:
    """The known failures in the lines of a log, each once, the specific ones first: the general follow from them."""
    found: Dict[str, Diagnosis] = {}
    for block in _blocks(log):
        told: Set[int] = set()  # where the lines begin of which a more specific failure has been found
        for failure in ALL_FAILURES:
            for match in matches(failure, block):
                start = block.rfind("\n", 0, match.start()) + 1
                if start not in told and failure.name not in found:
                    filled = worded(failure, package_manager(), match.groupdict())
                    found[failure.name] = Diagnosis(failure.name, _shown(match), filled.meaning, filled.advice)
                told.add(start)
    return [found[failure.name] for failure in ALL_FAILURES if failure.name in found]


def render(diagnoses: Sequence[Diagnosis]) -> str:
    """The diagnoses as text for a person."""
    if not diagnoses:
        return "nothing in this log is a known failure"
    return "\n".join(f"{one.meaning}\n    {one.line}\n  try: {one.advice}" for one in diagnoses)


def _blocks(log: Iterable[str]) -> Iterator[str]:
    lines: List[str] = []
    size = 0
    for line in log:
        for start in range(0, len(line), BLOCK_CHARACTERS):
            piece = line[start : start + BLOCK_CHARACTERS + OVERLAP_CHARACTERS]
            lines.append(piece if piece.endswith("\n") else piece + "\n")
            size += len(piece)
            if size >= BLOCK_CHARACTERS:
                yield "".join(lines)
                lines, size = [], 0
    yield "".join(lines)


def _shown(match: Match[str]) -> str:
    """The line of a match; of one that is too long to be shown, what is around the match."""
    block = match.string
    first = block.rfind("\n", 0, match.start()) + 1
    last = block.find("\n", match.end())
    if last - first <= SHOWN_CHARACTERS:
        return block[first:last].strip()
    start = max(first, min(match.start() - SHOWN_CHARACTERS // 4, last - SHOWN_CHARACTERS))
    end = min(last, start + SHOWN_CHARACTERS)
    return f"{'…' if start > first else ''}{block[start:end]}{'…' if end < last else ''}".strip()
