"""The gate's figures of a variant (gate.py) as text: ``inspect`` shows them, so no tokenizer may be imported."""

from typing import Any, Dict, Mapping

from neuronbert.hardware.schema import NUMBER, Schema, record, whole
from neuronbert.tasks.figure_text import logits_text, measured

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
        f"{logits_text(agreement['max_abs_diff'])} ({agreement['n']} texts)"
    )


def columns(variant: Mapping[str, Any]) -> Dict[str, str]:
    """What ``inspect`` shows of a variant's accuracy and agreement; ArtifactError for what the gate never wrote."""
    accuracy, agreement = measured(variant, FIGURES)
    return {
        "F1 (FP32)": f"{accuracy['f1']:.2f} ({accuracy['reference_f1']:.2f})" if accuracy else "not measured",
        "labels equal": f"{agreement['equal_labels']:.1%} of {agreement['n']} texts" if agreement else "not measured",
    }
