"""Which instance type each point of a sweep runs on, what that costs, and whether it has room for the point."""

from typing import Dict, Optional, Sequence

from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark.points import Setting, template_variant
from neuronbert.errors import UsageError
from neuronbert.hardware import cores
from neuronbert.hardware.prices import THIS_MACHINE, Price, PriceBook
from neuronbert.runner.placement import place_workers


class PointInstances:
    """The instance type of each point; ``inf1_instance_type`` is the inf1 size asked for, None as compiled."""

    def __init__(self, artifact: Artifact, instance_type: Optional[str], book: PriceBook):
        """``instance_type`` as asked for, None for none; UsageError for one without a price."""
        if instance_type is not None:
            book.price(instance_type)
        self.inf1_instance_type = instance_type if instance_type in cores.INSTANCE_TYPES else None
        self._artifact, self._instance_type, self._book = artifact, instance_type, book

    def name_of(self, setting: Setting) -> str:
        """The instance type that a price is looked up for."""
        if setting.pipeline_cores is None:
            return self._instance_type or THIS_MACHINE
        if self.inf1_instance_type is not None:
            return self.inf1_instance_type
        return str(template_variant(self._artifact.variants, setting)["recipe"]["instance_type"])

    def price_of(self, setting: Setting) -> Optional[Price]:
        """What the point's instance costs; None for this machine, unless a price file names it."""
        name = self.name_of(setting)
        return self._book.price(name) if name in self._book else None

    def prices(self, settings: Sequence[Setting]) -> Dict[str, Optional[Price]]:
        """Instance type → price, for all points of a sweep."""
        return {self.name_of(setting): self.price_of(setting) for setting in settings}

    def require_room(self, setting: Setting) -> None:
        """Raise UsageError for a point that the machine or the instance has no room for."""
        if setting.pipeline_cores is None:
            # A shape that is still to be compiled is placed like one there is.
            like = template_variant(self._artifact.variants, setting)["name"]
            place_workers(self._artifact, variant=like, workers=setting.workers, threads=setting.threads)
            return
        if self._instance_type is not None and self.inf1_instance_type is None:
            raise UsageError(f"{setting.variant} runs on NeuronCores, and {self._instance_type} has none")
        cores.layout_for(self.name_of(setting), setting.mode, setting.pipeline_cores, setting.workers)
