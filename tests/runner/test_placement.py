import os

import pytest

from neuronbert.artifact.manifest import Artifact
from neuronbert.errors import ArtifactError, UsageError
from neuronbert.hardware import requirements
from neuronbert.hardware.cores import layout_for
from neuronbert.runner import placement
from neuronbert.runner.placement import place_workers


@pytest.fixture()
def four_cpus(monkeypatch):
    monkeypatch.setattr(placement, "physical_cores", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 4, 5}, raising=False)


def test_one_process_with_a_stream_for_each_thread(echo_artifact, four_cpus):
    found = place_workers(echo_artifact)
    assert len(found.places) == 1
    assert (found.places[0].threads, found.places[0].cpus, found.streams) == (4, None, 4)


def test_cpus_are_divided_and_never_oversubscribed(echo_artifact, four_cpus):
    found = place_workers(echo_artifact, workers=2)
    assert [(place.threads, place.cpus) for place in found.places] == [(2, [2, 3]), (2, [4, 5])]
    assert [place.variables["OMP_NUM_THREADS"] for place in found.places] == ["2", "2"]
    with pytest.raises(UsageError, match="5 workers are more than the 4 CPU core"):
        place_workers(echo_artifact, workers=5)
    with pytest.raises(UsageError, match="2 workers × 3 threads is more than the 4 CPU cores"):
        place_workers(echo_artifact, workers=2, threads=3)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none(echo_artifact, workers):
    with pytest.raises(UsageError, match="whole number of at least 1"):
        place_workers(echo_artifact, workers=workers)


def test_a_cpu_artifact_has_no_cores(echo_artifact):
    with pytest.raises(UsageError, match="runs on the CPU"):
        place_workers(echo_artifact, instance_type="inf1.xlarge")


@pytest.fixture()
def neuron_artifact(echo_artifact, monkeypatch):
    """What a manifest says of an artifact for inf1; nothing is loaded."""
    monkeypatch.setattr(requirements, "has_inferentia", lambda: True)
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)
    variants = [
        {
            **echo_artifact.variants[0],
            "name": f"neuron-b6-s{length}-p1",
            "backend": "neuron",
            "precision": "bf16",
            "batch_size": 6,
            "sequence_length": length,
            "pipeline_cores": 1,
            "compiler_args": [],
            "requires": {"device": "neuron"},
            "recipe": {"instance_type": "inf1.xlarge", "mode": "data-parallel"},
        }
        for length in (128, 384)
    ]
    return Artifact(echo_artifact.folder, {**echo_artifact.manifest, "variants": variants})


def test_a_worker_for_each_core_group(neuron_artifact):
    found = place_workers(neuron_artifact)
    assert [place.variables["NEURON_RT_VISIBLE_CORES"] for place in found.places] == ["0", "1", "2", "3"]
    assert [place.variables["NEURONCORE_GROUP_SIZES"] for place in found.places] == ["1"] * 4
    assert found.in_flight == 2
    assert [variant["sequence_length"] for variant in found.variants] == [128, 384]
    assert len(place_workers(neuron_artifact, workers=2).places) == 2
    assert len(place_workers(neuron_artifact, instance_type="inf1.6xlarge").places) == 16


def test_layouts_that_cannot_be(neuron_artifact):
    with pytest.raises(UsageError, match="5 workers over 1 core"):
        place_workers(neuron_artifact, workers=5)
    with pytest.raises(ArtifactError, match="compiled for data-parallel, not for pipeline"):
        place_workers(neuron_artifact, mode="pipeline")
    with pytest.raises(UsageError, match="no instance type"):
        place_workers(neuron_artifact, instance_type="inf1.huge")
    with pytest.raises(UsageError, match="the layout has 4"):
        place_workers(neuron_artifact, layout=layout_for("inf1.xlarge", "pipeline", 4))
