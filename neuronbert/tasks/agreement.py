"""What the gates of all tasks measure alike: how far logits are from the reference's, and how far FP32's may be. Pure.

figure_text.py has the same as text.
"""

from typing import List, Mapping, Sequence

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF, Document


def largest_difference(actual: Sequence[Outputs], expected: Sequence[Outputs]) -> float:
    """The largest absolute difference of any of the rows' arrays; NaN where there is one."""
    return float(
        np.max([np.abs(ours[name] - theirs[name]).max() for ours, theirs in zip(actual, expected) for name in theirs])
    )


def logits_refusals(max_abs_diff: float) -> List[str]:
    """Why an FP32 variant with this largest difference is refused; empty if it is not."""
    if max_abs_diff <= FP32_MAX_ABS_DIFF:
        return []
    return [f"its logits differ from the FP32 reference by {max_abs_diff:.2g}, more than {FP32_MAX_ABS_DIFF:g}"]


def for_json(figures: Mapping[str, object]) -> Document:
    """The figures for JSON, which has no NaN or Inf: null stands for them."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in figures.items()
    }
