"""The environment that gives an artifact's workers their NeuronCores; ``neuronbert env`` prints it."""

import shlex
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Union

from neuronbert.artifact.manifest import Artifact, PathLike, Variant, artifact_of
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.backends.neuron.target import recorded_layout
from neuronbert.errors import ArtifactError, counted
from neuronbert.hardware.cores import CoreLayout


@dataclass(frozen=True)
class CoreEnvironment:
    """Variables, the layout that they come from, and what a person should know of it."""

    variables: Dict[str, str]
    layout: CoreLayout
    worker: Optional[int]
    explanation: List[str]

    def as_dict(self) -> Dict[str, Any]:
        """For --json."""
        return {
            "environment": self.variables,
            "worker": self.worker,
            "layout": self.layout.describe(),
            "explanation": self.explanation,
        }

    def as_shell(self) -> str:
        """Lines of ``export``, for eval."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.variables.items())


def core_environment(
    artifact: Union[Artifact, PathLike],
    *,
    instance_type: Optional[str] = None,
    worker: Optional[int] = None,
    variant: Optional[str] = None,
    trusted_key: TrustedKey = None,
) -> CoreEnvironment:
    """The variables for one process on the whole instance, or for worker number ``worker`` only.

    ``instance_type`` is by default the one it was compiled for. Raises ArtifactError for an artifact without a neuron
    variant, UsageError for a worker that the layout does not have or an instance with too few cores.
    """
    loaded = artifact_of(artifact, trusted_key)
    chosen = _neuron_variant(loaded, variant)
    layout = recorded_layout(chosen, instance_type)
    variables = layout.environment() if worker is None else layout.worker_environment(worker)
    return CoreEnvironment(variables, layout, worker, _explanation(layout, chosen))


def _neuron_variant(artifact: Artifact, name: Optional[str]) -> Variant:
    for variant in artifact.variants:
        if variant["backend"] == "neuron" and name in (None, variant["name"], "neuron"):
            return variant
    there = ", ".join(variant["name"] for variant in artifact.variants)
    raise ArtifactError(
        f"{artifact.folder} has no {'' if name is None else name + ', a '}variant for NeuronCores (it has {there})",
        hint="neuronbert compile CHECKPOINT OUTPUT --backend neuron",
    )


def _explanation(layout: CoreLayout, variant: Variant) -> List[str]:
    recipe = variant["recipe"]
    lines = [recipe["pipeline"]] if recipe["pipeline"] else []
    if recipe["refused_pipeline_cores"]:
        refused = ", ".join(map(str, recipe["refused_pipeline_cores"]))
        lines.append(f"the compiler refused {refused} cores and took {layout.cores_per_model}")
    idle = f", {counted(layout.idle_cores, 'core')} left idle" if layout.idle_cores else ""
    lines.append(
        f"{layout.mode} on {layout.instance}: "
        f"{counted(layout.replicas, 'worker')} over {counted(layout.cores_per_model, 'core')} each{idle}; "
        f"keep {counted(layout.in_flight_per_group, 'request')} in flight for each"
    )
    return lines
