"""The gate's figures of a variant (gate.py) as text: ``inspect`` shows them, so no tokenizer may be imported."""

from typing import Any, Dict, Mapping

from neuronbert.hardware.schema import NUMBER, Form, Schema, record, whole
from neuronbert.tasks.figure_text import measured

_MEASURED: Form = {"type": ["number", "null"]}  # null: fewer than two pairs have no order
# What the gate measured of a variant; null where it was skipped, or nothing was scored.
FIGURES = Schema(
    properties={
        "accuracy": {**record({"spearman": NUMBER, "reference_spearman": NUMBER}), "type": ["object", "null"]},
        "agreement": {
            **record({"mean_cosine": NUMBER, "rank_agreement": _MEASURED, "n": whole(0, 1 << 40)}),
            "type": ["object", "null"],
        },
    }
)


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """The figures that decide, and those that are only reported, in one line."""
    difference = agreement["max_abs_diff"]
    numbers = "embeddings with NaN or Inf" if difference is None else f"numbers within {difference:.2g}"
    ours, theirs = agreement["spearman"], agreement["reference_spearman"]
    scored = "" if ours is None or theirs is None else f"Spearman {100 * ours:.2f} of {100 * theirs:.2f} in FP32, "
    cosine, ranks = agreement["mean_cosine"], agreement["rank_agreement"]
    order = "ranks not measured" if ranks is None else f"ranks {ranks:.4f}"
    likeness = "" if cosine is None else f"cosine with FP32 {cosine:.4f}, {order}, "
    return f"{scored}{likeness}{numbers} ({agreement['n']} pairs)"


def columns(variant: Mapping[str, Any]) -> Dict[str, str]:
    """What ``inspect`` shows of a variant's accuracy and agreement; ArtifactError for what the gate never wrote."""
    accuracy, agreement = measured(variant, FIGURES)
    return {
        "Spearman (FP32)": f"{100 * accuracy['spearman']:.2f} ({100 * accuracy['reference_spearman']:.2f})"
        if accuracy
        else "not measured",
        "cosine": f"{agreement['mean_cosine']:.4f} of {agreement['n']}" if agreement else "not measured",
    }
