"""Static shapes that an artifact does not have are compiled when a sweep asks for them, and kept."""

import json

import pytest

from neuronbert import benchmark_artifact
from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark import sweep as benchmark
from neuronbert.benchmark.load import Period
from neuronbert.errors import ArtifactError, CheckpointError


@pytest.fixture(autouse=True)
def short_periods(monkeypatch):
    monkeypatch.setattr(benchmark, "Period", lambda longest_s: Period(warm_up_s=0.1, window_s=0.2, longest_s=longest_s))


def measured(artifact, **options):
    lines = []
    document = benchmark_artifact(artifact, concurrency="1", longest_s=0.6, progress=lines.append, **options)
    return document["points"], lines


def test_missing_shapes_are_compiled_on_demand_and_kept(data_parallel_artifact, start_emulator):
    start_emulator("inf1.xlarge")
    asked = {"batch_size": "2", "sequence_length": "64", "neuroncore_pipeline_cores": "1,2"}
    points, lines = measured(data_parallel_artifact, **asked)
    assert [(one["variant"], one["pipeline_size"], one["n_models"]) for one in points] == [
        ("neuron-b2-s64-p1", 1, 4),
        ("neuron-b2-s64-p2", 2, 2),
    ]
    assert all(one["throughput_avg"] > 0 and one["errors"] == 0 and one["emulated"] for one in points)
    assert [one["mode"] for one in points] == ["data-parallel", "pipeline"]
    assert "1 to be compiled first" in lines[1]
    assert sum("is compiled on demand for inf1.xlarge" in line for line in lines) == 1
    _, lines = measured(data_parallel_artifact, **{**asked, "neuroncore_pipeline_cores": "2"})
    assert not any("is compiled on demand" in line for line in lines)


def test_real_text_goes_through_what_was_compiled(data_parallel_artifact, start_emulator):
    start_emulator("inf1.xlarge")
    points, _ = measured(data_parallel_artifact, workers="1")
    assert [(one["sequence_length"], one["input"]) for one in points] == [(64, "text"), (128, "text")]
    assert all(one["instance_type"] == "inf1.xlarge" for one in points)


@pytest.mark.parametrize(
    ("facts", "error", "words"),
    [
        ({"source": "in-memory BertForQuestionAnswering"}, ArtifactError, "model in memory"),
        ({"fingerprint": "0" * 64}, CheckpointError, "no longer holds the weights"),
    ],
)
def test_what_cannot_be_compiled_on_demand(data_parallel_artifact, start_emulator, facts, error, words):
    start_emulator("inf1.xlarge")
    manifest = json.loads(json.dumps(data_parallel_artifact.manifest))
    manifest["checkpoint"].update(facts)
    manifest["digest"] = words  # of its own in the cache
    with pytest.raises(error, match=words):
        measured(Artifact(data_parallel_artifact.folder, manifest), batch_size="1", sequence_length="64")
