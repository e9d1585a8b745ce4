"""Which steps the chain has, and which it goes on with: a short probe decides where that depends on the machine."""

from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence

from neuronbert.backends import load_backend
from neuronbert.compiler.ladder import MIN_GAIN
from neuronbert.errors import counted
from neuronbert_tools.chain.models import BASE, FP32, INT8, STUDENT
from neuronbert_tools.chain.readers import Configuration, Readers
from neuronbert_tools.questions import Pair
from neuronbert_tools.server.throughput import rate_of, ratio
from neuronbert_tools.server.turns import Turn, in_rounds

PROBES = 3


class Step(NamedTuple):
    """A step of the chain. ``before`` is the step that it changes: the last one that was taken."""

    name: str
    title: str
    configuration: Configuration
    before: Optional[str] = None
    taken: bool = True  # whether the next step builds on it
    probed: Dict[str, float] = {}  # what there was to choose from, and its rate in those of the step before


class _Chain:
    """Steps as they are added."""

    def __init__(self, readers: Readers, probe: Sequence[Pair]):
        self.steps: List[Step] = []
        self._readers = readers
        self._probe = probe

    @property
    def last(self) -> Step:
        """The last step that was taken."""
        return [step for step in self.steps if step.taken][-1]

    def take(self, name: str, title: str, configuration: Configuration) -> None:
        """Add a step that is taken whatever it brings."""
        before = self.last.name if self.steps else None
        self.steps.append(Step(name, title, configuration, before))

    def try_out(self, name: str, title: Callable[[Configuration], str], offered: Iterable[Configuration]) -> None:
        """Add the fastest that is offered, which is taken if it is clearly faster than the last step."""
        before, choice = self.last, list(dict.fromkeys(offered))
        turns = {str(one): self._turn(one) for one in [before.configuration, *choice]}
        samples = in_rounds(turns, PROBES)
        factors = {str(one): ratio(samples, str(one), str(before.configuration)) for one in choice}
        fastest = max(choice, key=lambda one: factors[str(one)])
        self.steps.append(Step(name, title(fastest), fastest, before.name, factors[str(fastest)] >= MIN_GAIN, factors))

    def _turn(self, configuration: Configuration) -> Turn:
        reader = self._readers.reader(configuration)
        return lambda: rate_of(lambda: reader.answer_together(self._probe), len(self._probe))


def streams_to_try(threads: int) -> List[int]:
    """From a stream for each thread down to two: one is what there was before. A single thread has one stream."""
    halved = [threads >> times for times in range(threads.bit_length() - 1)]
    return halved or [1]


def choose_steps(readers: Readers, backends: Sequence[str], padded_to: int, probe: Sequence[Pair]) -> List[Step]:
    """The steps on this machine, found with the questions ``probe``; the first ones have rows of ``padded_to``."""
    chain = _Chain(readers, probe)
    padded = Configuration(BASE, backends[0], FP32, padded_to=padded_to)
    chain.take("base", f"{readers.models.base_name}, FP32, padded to {padded_to}", padded)
    chain.take("student", "the distilled model", padded._replace(model=STUDENT))
    natural = padded._replace(model=STUDENT, padded_to=None)
    chain.take("lengths", "lengths as they are", natural)
    if len(backends) > 1:  # else int8 would be credited with what its engine brings by itself
        chain.try_out(
            "engine",
            lambda one: f"another engine ({one.backend})",
            (natural._replace(backend=name) for name in backends[1:]),
        )
    chain.try_out(
        "int8",
        lambda one: f"int8 ({one.backend})",
        (natural._replace(backend=name, precision=INT8) for name in backends),
    )
    one_stream = chain.last.configuration
    chain.try_out(
        "streams",
        lambda one: f"{counted(one.streams, 'stream')} on {counted(readers.threads, 'thread')}",
        (one_stream._replace(streams=count) for count in streams_to_try(readers.threads)),
    )
    by_row = chain.last.configuration
    planned = load_backend(by_row.backend).throughput_plan(readers.threads).streams
    chain.try_out(
        "batches",
        lambda one: "batches of similar lengths",
        (by_row._replace(batched=True, streams=count) for count in (planned, by_row.streams)),
    )
    chain.take("cache", "the result cache", chain.last.configuration._replace(cached=True))
    return chain.steps
