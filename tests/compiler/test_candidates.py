"""Which variants are tried, and how fast each is."""

import re
from contextlib import contextmanager
from typing import List

import numpy as np
import pytest
from fake_nvml import Card, use_gpus
from logits import logits as logits_of

from neuronbert.backends import BACKENDS, backend_module
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.compiler import candidates
from neuronbert.compiler.candidates import (
    Candidate,
    Trial,
    auto_backends,
    choose_candidates,
    names,
    refuse_unavailable,
    unusable_gpu,
)
from neuronbert.compiler.timing import ROUNDS, time_trials
from neuronbert.errors import BackendFailed, BackendUnavailable, UsageError
from neuronbert.tasks.question_answering.task import OUTPUTS
from neuronbert.tasks.question_answering.windows import Window


def test_names_are_split_and_not_repeated():
    assert names(["a,b", "b", " c "]) == ["a", "b", "c"]
    assert names("a") == ["a"]


def test_auto_tries_every_precision_of_every_real_backend():
    candidates = choose_candidates("auto", "auto")
    assert {candidate.backend for candidate in candidates} == set(auto_backends())
    assert Candidate("openvino", "int8", False) in candidates
    assert not any(candidate.explicit for candidate in candidates)


def test_combinations_asked_for_are_explicit():
    assert choose_candidates("openvino,onnxruntime", ["fp32"]) == [
        Candidate("openvino", "fp32", True),
        Candidate("onnxruntime", "fp32", True),
    ]


def test_half_an_auto_is_an_auto():
    assert choose_candidates("torchscript", "auto") == [Candidate("torchscript", "fp32", False)]


@pytest.mark.parametrize(
    ("backend", "precision", "words"),
    [
        ("tensorrt", "fp32", "no backend 'tensorrt'"),
        ("openvino", "fp64", "no precision 'fp64'"),
        ("auto,openvino", "fp32", "auto cannot be combined"),
        ("torchscript", "int8", "no backend of torchscript offers int8"),
        ("torchscript,echo,openvino", "int8,fp32", "torchscript does not offer int8; echo does not offer int8$"),
        ("", "fp32", "no backend of none"),
    ],
)
def test_nonsense_is_refused_in_words(backend, precision, words):
    with pytest.raises(UsageError) as error:
        choose_candidates(backend, precision)
    assert re.search(words, error.value.message)


def test_an_auto_passes_over_what_a_backend_does_not_offer():
    assert choose_candidates("auto", "int8") == [
        Candidate("openvino", "int8", False),
        Candidate("onnxruntime", "int8", False),
    ]


def test_every_backend_is_known_to_the_table():
    assert set(auto_backends()) < set(BACKENDS)


@pytest.mark.parametrize(("emulated", "expected"), [("", ["openvino", "onnxruntime"]), ("inf1.xlarge", ["neuron"])])
def test_auto_goes_by_the_device_and_the_ranks_that_backends_state(monkeypatch, emulated, expected):
    monkeypatch.setenv("NEURONBERT_EMULATE", emulated)
    assert auto_backends() == expected


@pytest.mark.parametrize(
    ("gpu", "usable", "visible", "inferentia", "expected"),
    [
        (True, True, None, False, ["cuda"]),
        (True, True, "0", False, ["cuda"]),
        (True, True, "", False, ["openvino", "onnxruntime"]),
        (True, True, "-1", False, ["openvino", "onnxruntime"]),
        (True, False, None, False, ["openvino", "onnxruntime"]),
        (True, True, None, True, ["neuron"]),
        (False, True, None, False, ["openvino", "onnxruntime"]),
    ],
)
def test_auto_means_the_gpu_unless_it_is_hidden_or_of_no_use_or_there_is_inferentia(
    monkeypatch, gpu, usable, visible, inferentia, expected
):
    def check(precision: str) -> None:
        if not usable:
            raise BackendUnavailable("torch is built without CUDA", hint="another torch")

    use_gpus(monkeypatch, *([Card("GPU-h100")] if gpu else []))
    monkeypatch.setattr(backend_module("cuda"), "check_available", check)
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)
    monkeypatch.setattr(candidates, "has_inferentia", lambda: inferentia)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert auto_backends() == expected
    said = "the GPU is left alone: torch is built without CUDA (try: another torch)"
    assert unusable_gpu() == (said if gpu and not usable else None)


def test_a_gpu_that_has_one_precision_is_of_use(monkeypatch):
    def check(precision: str) -> None:
        if precision != "fp16":
            raise BackendUnavailable(f"no {precision}")

    use_gpus(monkeypatch, Card("GPU-h100"))
    monkeypatch.setattr(backend_module("cuda"), "check_available", check)
    assert unusable_gpu() is None


@pytest.mark.parametrize(
    "backend, missing, refused",
    [
        ("openvino", {"fp32", "bf16", "int8"}, True),  # a machine that has it in no precision is told at once
        ("openvino", {"bf16"}, False),
        ("auto", {"fp32", "bf16", "int8"}, False),  # there are others, and each says why it was not built
    ],
)
def test_a_backend_that_is_not_there_at_all_is_refused_before_a_checkpoint_is_read(
    monkeypatch, backend, missing, refused
):
    monkeypatch.setattr(candidates, "_auto_device", lambda: "cpu")

    def check(precision: str) -> None:
        if precision in missing:
            raise BackendUnavailable(f"openvino cannot run {precision} here", hint="another machine")

    monkeypatch.setattr(backend_module("openvino"), "check_available", check)
    chosen = choose_candidates(backend, "auto")
    if refused:
        with pytest.raises(BackendUnavailable, match="openvino cannot run fp32 here"):
            refuse_unavailable(chosen)
    else:
        refuse_unavailable(chosen)


class Sleeper:
    """A session that takes ``tokens`` of a clock of its own."""

    precision = "fp32"
    concurrency = 1

    def __init__(self, now: List[float], seconds_per_token: float):
        self.now = now
        self.seconds_per_token = seconds_per_token

    def run(self, batch: Batch) -> Outputs:
        self.now[0] += batch.input_ids.size * self.seconds_per_token
        return logits_of(np.zeros(batch.input_ids.shape, np.float32), np.zeros(batch.input_ids.shape, np.float32))

    def close(self) -> None:
        pass


def test_speeds_are_windows_per_second_over_the_same_windows():
    now = [0.0]
    window = Window(np.ones(100, np.int64), np.zeros(100, np.int64), 10, 0, 89)
    trials = [
        Trial(Candidate("slow", "fp32", False), session=Sleeper(now, 0.002)),
        Trial(Candidate("fast", "fp32", False), session=Sleeper(now, 0.001)),
    ]
    time_trials(trials, [window] * 40, OUTPUTS, 0, lambda: now[0])
    assert [trial.speed for trial in trials] == pytest.approx([5.0, 10.0])
    assert [len(trial.windows_per_s) for trial in trials] == [ROUNDS, ROUNDS]


@pytest.mark.parametrize("rows, timed", [(8, 96), (64, 128), (512, 300)])
def test_what_is_timed_fills_two_batches_of_the_largest(rows, timed):
    now, asked = [0.0], []

    class Counting(Sleeper):
        def run(self, batch: Batch) -> Outputs:
            asked.append(len(batch.input_ids))
            return super().run(batch)

    window = Window(np.ones(4, np.int64), np.zeros(4, np.int64), 1, 0, 2)
    plans = (ThroughputPlan(1, 8, 4096), ThroughputPlan(1, rows, 4096))
    trials = [Trial(Candidate("a", "fp32", False), session=Counting(now, 1e-9), plan=plan) for plan in plans]
    time_trials(trials, [window] * 300, OUTPUTS, 0, lambda: now[0])
    probe = 2 * 2 * 8  # twice by each
    assert sum(asked) == probe + ROUNDS * len(trials) * timed


def test_one_that_breaks_while_it_is_timed_leaves_the_others_timed():
    now = [0.0]

    class Breaking(Sleeper):
        runs = 0

        def run(self, batch: Batch) -> Outputs:
            self.runs += 1
            if self.runs > 10:  # in the second round of all, after the probes
                raise BackendFailed("it broke")
            return super().run(batch)

    @contextmanager
    def guard(trial):
        try:
            yield
        except BackendFailed:
            trial.session = None

    window = Window(np.ones(100, np.int64), np.zeros(100, np.int64), 10, 0, 89)
    broken = Trial(Candidate("broken", "fp32", False), session=Breaking(now, 0.002))
    good = Trial(Candidate("good", "fp32", False), session=Sleeper(now, 0.001))
    time_trials([broken, good], [window] * 40, OUTPUTS, 0, lambda: now[0], guard)
    assert (broken.session, good.speed, len(good.windows_per_s)) == (None, pytest.approx(10.0), ROUNDS)
    time_trials([broken], [window] * 40, OUTPUTS, 0, lambda: now[0], guard)
    assert broken.speed == 0.0


def test_the_speed_is_the_median_of_the_rounds():
    assert Trial(Candidate("a", "fp32", False), windows_per_s=[4.0, 40.0, 5.0]).speed == 5.0
    assert Trial(Candidate("a", "fp32", False)).speed == 0.0
