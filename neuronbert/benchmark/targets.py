"""What a sweep asks of what it measures, be it an artifact (artifact_target.py) or a server (server_target.py)."""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Protocol

from neuronbert.benchmark.load import Period
from neuronbert.benchmark.measure import Measured
from neuronbert.benchmark.points import Setting
from neuronbert.benchmark.sweep_plan import SweepPlan
from neuronbert.hardware.prices import Price


class TargetFacts(NamedTuple):
    """What a report says of it, each a JSON object."""

    artifact: Dict[str, Any]
    emulation: Optional[Mapping[str, Any]]  # what stands in for the device
    server: Optional[Dict[str, Any]]  # None of an artifact


class Target(Protocol):
    """What is measured."""

    @property
    def plan(self) -> SweepPlan:
        """The points to measure."""

    @property
    def facts(self) -> TargetFacts:
        """What it is."""

    @property
    def digest(self) -> Optional[str]:
        """Of the artifact, where that is known: an interrupted sweep goes on with the same one only."""

    @property
    def start_s(self) -> float:
        """Seconds that a point takes before anything is asked, about."""

    def compile_s(self, setting: Setting) -> float:
        """Seconds that it takes to compile what the setting lacks, about; 0 where it lacks nothing."""

    def instance_of(self, setting: Setting) -> Optional[str]:
        """The instance type of a point."""

    def price_of(self, setting: Setting) -> Optional[Price]:
        """What that costs; None where it has no price."""

    def measure(self, setting: Setting, period: Period) -> Measured:
        """One point; raises NeuronBertError where this one cannot be measured."""

    def refuse_changed(self) -> None:
        """Raise NeuronBertError where the target is no longer what it was: then no point of it means anything."""
