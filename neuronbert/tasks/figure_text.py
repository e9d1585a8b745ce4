"""The gate's figures of a variant, checked and as text, for the figures modules of all tasks. Light: no numpy."""

from typing import Any, Dict, Mapping, NamedTuple, Optional

from neuronbert.errors import ArtifactError
from neuronbert.hardware.schema import Schema


class Measured(NamedTuple):
    """What the gate measured of a variant; None where it was skipped, accuracy also where nothing was labelled."""

    accuracy: Optional[Dict[str, Any]]
    agreement: Optional[Dict[str, Any]]


def measured(variant: Mapping[str, Any], schema: Schema) -> Measured:
    """The figures of a variant's entry in the manifest; ArtifactError for what the task's gate never wrote."""
    fault = schema.fault(variant)
    if fault is not None:
        raise ArtifactError(f"variant {variant['name']}: {fault}", hint="copy the artifact again, or compile it again")
    return Measured(variant["accuracy"], variant["agreement"])


def logits_text(max_abs_diff: Optional[float]) -> str:
    """How far the logits are from the reference's, in words; None: no number."""
    return "logits with NaN or Inf" if max_abs_diff is None else f"logits within {max_abs_diff:.2g}"
