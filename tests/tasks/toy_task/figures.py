"""What the gate measured of a variant, as text."""

from typing import Any, Dict, Mapping


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """An Agreement's figures in one line."""
    return f"{agreement['equal_labels']:.0%} of {agreement['n']} labels equal, within {agreement['max_abs_diff']:.2g}"


def columns(variant: Mapping[str, Any]) -> Dict[str, str]:
    """What ``inspect`` shows of a variant."""
    agreement = variant["agreement"]
    return {"equal labels": f"{agreement['equal_labels']:.0%}" if agreement else "not measured"}
