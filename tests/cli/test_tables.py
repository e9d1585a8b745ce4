"""What a command prints is its result, and nothing else."""

import os

from neuronbert.cli.tables import stdout_to_stderr, trial_lines


def test_what_native_code_prints_inside_goes_to_stderr_and_afterwards_to_stdout(capfd):
    print("before")
    with stdout_to_stderr():
        print("from Python")
        os.write(1, b"from native code\n")
        os.system("echo from a child")
    print("after")
    out, err = capfd.readouterr()
    assert out.split("\n") == ["before", "after", ""]
    assert sorted(err.split("\n")) == ["", "from Python", "from a child", "from native code"]


def test_stdout_is_back_after_an_error(capfd):
    try:
        with stdout_to_stderr():
            raise OSError("no room")
    except OSError:
        os.write(1, b"here\n")
    assert capfd.readouterr().out == "here\n"


def test_a_trial_whose_logits_are_nan_is_rendered():
    agreement = {"n": 500, "max_abs_diff": None, "top1_agreement": 0.0, "f1": 0.0, "reference_f1": 80.0}
    trial = {
        "name": "a-fp32",
        "outcome": "refused",
        "why": "its logits hold NaN or Inf",
        "windows_per_s": [1.0],
        "agreement": {**agreement, "answer_f1": 0.0, "f1_ratio": 0.0},
    }
    assert "logits with NaN or Inf (500 questions)" in trial_lines(trial)[1]
