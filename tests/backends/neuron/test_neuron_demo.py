"""The demo checkpoint on the emulator reads as it does in FP32: both modes, both lengths, first questions of XQuAD.

All 1,190 questions, of which docs/measurements.md gives the figures, are:

    export NEURONBERT_EMULATE=inf1.xlarge
    neuronbert compile demo OUT --backend neuron --sequence-length 128,384 --batch-size 1,6
    neuronbert evaluate OUT tests/data/xquad/xquad-en.json --variant neuron-b1-s128-p1 --against demo
"""

from pathlib import Path

import pytest
from emulated import compile_emulated

from neuronbert.benchmark.evaluation import evaluate_artifact

XQUAD = Path(__file__).resolve().parents[2] / "data" / "xquad" / "xquad-en.json"
QUESTIONS = 24
MOST_POINTS_LOST = 0.5  # of F1
DATA_PARALLEL = {"sequence_length": "128,384"}
PIPELINE = {"mode": "pipeline", "sequence_length": "128,384"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fp32(echo_artifact):
    """F1 of the checkpoint itself, by window length."""

    def measured(length):
        report = evaluate_artifact(echo_artifact, XQUAD, against="demo", limit=QUESTIONS, threads=1, max_seq_len=length)
        return report.comparison.metrics["f1"]

    return {length: measured(length) for length in (128, 384)}


@pytest.fixture(scope="module", params=[DATA_PARALLEL, PIPELINE], ids=["data-parallel", "pipeline"])
def artifact(request, neuron_cache, tmp_path_factory):
    return compile_emulated("demo", tmp_path_factory.mktemp("demo"), threads=1, **request.param)


def test_every_bucket_loses_less_than_half_a_point_of_f1(start_emulator, artifact, fp32):
    start_emulator()
    lost = {}
    for variant in artifact.variants:
        report = evaluate_artifact(artifact, XQUAD, variant=variant["name"], limit=QUESTIONS)
        assert report.metrics["f1"] > 50
        lost[variant["name"]] = fp32[variant["sequence_length"]] - report.metrics["f1"]
    assert len(lost) == 2
    assert {name: points for name, points in lost.items() if abs(points) > MOST_POINTS_LOST} == {}
