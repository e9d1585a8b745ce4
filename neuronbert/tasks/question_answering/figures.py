"""The gate's figures of a variant (gate.py) as text: ``inspect`` shows them, so no tokenizer may be imported."""

from typing import Any, Dict, Mapping, Optional

from neuronbert.errors import ArtifactError
from neuronbert.hardware.schema import NUMBER, Schema, record, whole

# What the gate measured of a variant; null where it was skipped.
FIGURES = Schema(
    properties={
        "accuracy": {**record({"f1": NUMBER, "reference_f1": NUMBER}), "type": ["object", "null"]},
        "agreement": {**record({"top1_agreement": NUMBER, "n": whole(0, 1 << 40)}), "type": ["object", "null"]},
    }
)


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """The figures that decide, and those that are only reported, in one line."""
    return (
        f"F1 {agreement['f1']:.2f} of {agreement['reference_f1']:.2f} in FP32, answer F1 {agreement['answer_f1']:.3f}, "
        f"top-1 equal {agreement['top1_agreement']:.1%}, {_logits_text(agreement['max_abs_diff'])} "
        f"({agreement['n']} questions)"
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
        "top-1 equal": f"{agreement['top1_agreement']:.1%} of {agreement['n']}" if agreement else "not measured",
    }
