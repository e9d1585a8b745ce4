"""The gate's figures of a variant (gate.py) as text: ``inspect`` shows them, so no tokenizer may be imported."""

from typing import Any, Dict, Mapping

from neuronbert.hardware.schema import NUMBER, Schema, record, whole
from neuronbert.tasks.figure_text import logits_text, measured

# What the gate measured of a variant; null where it was skipped, or nothing was labelled.
FIGURES = Schema(
    properties={
        "accuracy": {**record({"accuracy": NUMBER, "reference_accuracy": NUMBER}), "type": ["object", "null"]},
        "agreement": {**record({"agreement": NUMBER, "n": whole(0, 1 << 40)}), "type": ["object", "null"]},
    }
)


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """The figures that decide, and those that are only reported, in one line."""
    logits = logits_text(agreement["max_abs_diff"])
    ours, theirs = agreement["accuracy"], agreement["reference_accuracy"]
    accuracy = "" if ours is None or theirs is None else f"accuracy {ours:.2%} of {theirs:.2%} in FP32, "
    return f"{accuracy}agrees with FP32 {agreement['agreement']:.1%}, {logits} ({agreement['n']} texts)"


def columns(variant: Mapping[str, Any]) -> Dict[str, str]:
    """What ``inspect`` shows of a variant's accuracy and agreement; ArtifactError for what the gate never wrote."""
    accuracy, agreement = measured(variant, FIGURES)
    return {
        "accuracy (FP32)": f"{accuracy['accuracy']:.2%} ({accuracy['reference_accuracy']:.2%})"
        if accuracy
        else "not measured",
        "agrees": f"{agreement['agreement']:.1%} of {agreement['n']}" if agreement else "not measured",
    }
