"""How results read as text."""

from neuronbert.cli.tables import trial_lines
from neuronbert.tasks.question_answering import figures


def test_a_trial_whose_logits_are_nan_is_rendered():
    agreement = {"n": 500, "max_abs_diff": None, "top1_agreement": 0.0, "f1": 0.0, "reference_f1": 80.0}
    trial = {
        "name": "a-fp32",
        "outcome": "refused",
        "why": "its logits hold NaN or Inf",
        "windows_per_s": [1.0],
        "agreement": {**agreement, "answer_f1": 0.0, "f1_ratio": 0.0},
    }
    assert "logits with NaN or Inf (500 questions)" in trial_lines(trial, figures)[1]
