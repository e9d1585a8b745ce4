"""The gate's figures of a variant (gate.py) as text: ``inspect`` shows them, so no tokenizer may be imported."""

from typing import Any, Dict, Mapping

from neuronbert.hardware.schema import NUMBER, Schema, record, whole
from neuronbert.tasks.figure_text import logits_text, measured

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
        f"top-1 equal {agreement['top1_agreement']:.1%}, {logits_text(agreement['max_abs_diff'])} "
        f"({agreement['n']} questions)"
    )


def columns(variant: Mapping[str, Any]) -> Dict[str, str]:
    """What ``inspect`` shows of a variant's accuracy and agreement; ArtifactError for what the gate never wrote."""
    accuracy, agreement = measured(variant, FIGURES)
    return {
        "F1 (FP32)": f"{accuracy['f1']:.2f} ({accuracy['reference_f1']:.2f})" if accuracy else "not measured",
        "top-1 equal": f"{agreement['top1_agreement']:.1%} of {agreement['n']}" if agreement else "not measured",
    }
