"""The gate's figures of a variant (gate.py) as text: ``inspect`` shows them, so no tokenizer may be imported."""

from typing import Any, Dict, Mapping, Optional

from neuronbert.errors import ArtifactError
from neuronbert.hardware.schema import NUMBER, Schema, record, whole

# What the gate measured of a variant; null where it was skipped, accuracy also where no data was labelled.
FIGURES = Schema(
    properties={
        "accuracy": {**record({"f1": NUMBER, "reference_f1": NUMBER}), "type": ["object", "null"]},
        "agreement": {
            **record({"equal_labels": NUMBER, "entity_f1": NUMBER, "n": whole(0, 1 << 40)}),
            "type": ["object", "null"],
        },
    }
)


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """The figures that decide, and those that are only reported, in one line."""
    f1 = "" if agreement["f1"] is None else f"F1 {agreement['f1']:.2f} of {agreement['reference_f1']:.2f} in FP32, "
    return (
        f"{f1}entity F1 against FP32 {agreement['entity_f1']:.3f}, labels equal {agreement['equal_labels']:.1%}, "
        f"{_logits_text(agreement['max_abs_diff'])} ({agreement['n']} texts)"
    )


def _logits_text(max_abs_diff: Optional[float]) -> str:
    return "logits with NaN or Inf" if max_abs_diff is None else f"logits within {max_abs_diff:.2g}"


def columns(variant: Mapping[str, Any]) -> Dict[str, str]:
    """What ``inspect`` shows of a variant's accuracy and agreement; ArtifactError for what the gate never wrote."""
    fault = FIGURES.fault(variant)
    if fault is not None:
        raise ArtifactError(f"variant {variant['name']}: {fault}", hint="copy the artifact again, or compile it again")
    accuracy, agreement = variant["accuracy"], variant["agreement"]
    return {
        "F1 (FP32)": f"{accuracy['f1']:.2f} ({accuracy['reference_f1']:.2f})" if accuracy else "not measured",
        "labels equal": f"{agreement['equal_labels']:.1%} of {agreement['n']} texts" if agreement else "not measured",
    }
