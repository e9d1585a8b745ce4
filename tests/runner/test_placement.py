import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fake_nvml import SLICED, T4, Card, use_gpus
from processes import wait_until

from neuronbert import Runner
from neuronbert.artifact.manifest import Artifact
from neuronbert.backends import BACKENDS, backend_module
from neuronbert.cli import top
from neuronbert.errors import ArtifactError, UsageError
from neuronbert.hardware import requirements
from neuronbert.hardware.cores import layout_for
from neuronbert.hardware.cuda import GIB
from neuronbert.runner import placement
from neuronbert.runner.placement import place_workers, workers_of_job


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


@pytest.fixture()
def gpu_artifact(echo_artifact, monkeypatch):
    """One whose backend says that it runs on GPUs; nothing is loaded. It needs what a T4 has not."""
    backend = ModuleType("gpu_backend")
    vars(backend).update(vars(backend_module("echo")), DEVICE="cuda")
    monkeypatch.setitem(sys.modules, "gpu_backend", backend)
    monkeypatch.setitem(BACKENDS, "cuda", "gpu_backend")
    monkeypatch.setattr(requirements, "library_version", lambda name: "99.0")
    requires = {"device": "cuda", "compute_capability": ">=8.0"}
    variant = {**echo_artifact.variants[0], "name": "cuda-bf16", "backend": "cuda", "requires": requires}
    return Artifact(echo_artifact.folder, {**echo_artifact.manifest, "variants": [variant]})


H100 = Card("GPU-h100")


def test_a_worker_for_each_gpu_and_slice(gpu_artifact, four_cpus, monkeypatch):
    use_gpus(monkeypatch, H100, SLICED)
    found = place_workers(gpu_artifact)
    assert [place.variables["CUDA_VISIBLE_DEVICES"] for place in found.places] == ["GPU-h100", "MIG-1", "MIG-2"]
    assert [place.cores for place in found.places] == [
        "GPU 0 (NVIDIA H100 80GB HBM3)",
        "GPU 1 (NVIDIA A100-SXM4-40GB MIG 1g.5gb)",
        "GPU 1 (NVIDIA A100-SXM4-40GB MIG 1g.5gb)",
    ]
    assert [(place.threads, place.cpus, place.variables["OMP_NUM_THREADS"]) for place in found.places] == [
        (1, None, "1")
    ] * 3
    assert (found.layout, found.in_flight) == (None, None)


def test_workers_take_the_first_gpus_and_share_the_cpus(gpu_artifact, four_cpus, monkeypatch):
    use_gpus(monkeypatch, H100, SLICED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    found = place_workers(gpu_artifact, workers=2)
    assert [place.variables["CUDA_VISIBLE_DEVICES"] for place in found.places] == ["MIG-1", "MIG-2"]
    assert [place.threads for place in found.places] == [2, 2]
    assert [place.threads for place in place_workers(gpu_artifact, workers=2, threads=1).places] == [1, 1]
    assert place_workers(gpu_artifact, workers=1, streams=3).streams == 3
    with pytest.raises(UsageError, match="5 workers are more than the 3 GPUs, .* and than the 4 CPU cores") as caught:
        place_workers(gpu_artifact, workers=5)
    assert caught.value.hint == "workers=4"
    with pytest.raises(UsageError, match="2 workers × 3 threads is more than the 4 CPU cores"):
        place_workers(gpu_artifact, workers=2, threads=3)


def test_more_workers_than_gpus_share_them_evenly(gpu_artifact, monkeypatch):
    monkeypatch.setattr(placement, "physical_cores", lambda: 16)
    use_gpus(monkeypatch, H100, H100._replace(uuid="GPU-other"))
    found = place_workers(gpu_artifact, workers=5)
    assert [place.variables["CUDA_VISIBLE_DEVICES"] for place in found.places] == [
        "GPU-h100", "GPU-other", "GPU-h100", "GPU-other", "GPU-h100",
    ]  # fmt: skip
    assert {(place.threads, place.sharing) for place in found.places} == {(3, 3)}
    assert {place.sharing for place in place_workers(gpu_artifact, workers=16).places} == {8}
    assert {place.sharing for place in place_workers(gpu_artifact).places} == {1}


@pytest.mark.parametrize(
    ("cards", "cores", "workers"),
    [
        ([H100], 16, 8),
        ([H100], 6, 6),
        ([H100, H100._replace(uuid="GPU-other")], 6, 6),
        ([H100, H100._replace(uuid="GPU-other")], 1, 2),
        ([Card("GPU-t4", "Tesla T4", (8, 0), 16 * GIB)], 16, 4),
        ([SLICED], 16, 2),
        ([H100._replace(memory_bytes=None)], 16, 8),  # the driver does not say
    ],
)
def test_a_job_s_workers_are_as_many_as_cores_and_memory_allow(gpu_artifact, monkeypatch, cards, cores, workers):
    monkeypatch.setattr(placement, "physical_cores", lambda: cores)
    use_gpus(monkeypatch, *cards)
    assert workers_of_job(gpu_artifact) is None  # where one process that tokenises is enough
    monkeypatch.setattr(sys.modules["gpu_backend"], "HOST_BOUND", True)
    assert workers_of_job(gpu_artifact) == workers
    assert len(place_workers(gpu_artifact, workers=workers).places) == workers


def test_a_job_on_cpus_has_the_runner_s_workers(echo_artifact, monkeypatch):
    monkeypatch.setattr("neuronbert.backends.echo.HOST_BOUND", True)
    assert workers_of_job(echo_artifact) is None


def test_more_gpus_than_cores_have_a_thread_each(gpu_artifact, monkeypatch):
    monkeypatch.setattr(placement, "physical_cores", lambda: 1)
    use_gpus(monkeypatch, H100, H100._replace(uuid="GPU-other"))
    for threads in (None, 1):
        assert [place.threads for place in place_workers(gpu_artifact, threads=threads).places] == [1, 1]


def test_a_gpu_that_is_too_old_gets_no_worker(gpu_artifact, four_cpus, monkeypatch):
    use_gpus(monkeypatch, T4, H100)
    found = place_workers(gpu_artifact)
    assert [place.variables["CUDA_VISIBLE_DEVICES"] for place in found.places] == ["GPU-h100"]
    use_gpus(monkeypatch, T4)
    with pytest.raises(ArtifactError, match="needs a GPU of compute capability >=8.0 .there is Tesla T4"):
        place_workers(gpu_artifact)


def test_gpus_have_no_layout_of_cores(gpu_artifact, monkeypatch):
    use_gpus(monkeypatch, H100)
    for options in ({"instance_type": "inf1.xlarge"}, {"mode": "pipeline"}, {"layout": layout_for("inf1.xlarge")}):
        with pytest.raises(UsageError, match="cuda-bf16 runs on GPUs and has no layout of NeuronCores"):
            place_workers(gpu_artifact, **options)


def test_what_is_missing_for_a_gpu_is_the_extra_of_its_backend(gpu_artifact, monkeypatch):
    """Not the extras that others have its libraries in."""
    use_gpus(monkeypatch, H100)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(requirements, "library_version", lambda name: None)
    gpu_artifact.variants[0]["requires"]["libraries"] = {"torch": ">=2.4", "nvidia-ml-py": ">=12.535"}
    with pytest.raises(ArtifactError, match="torch >=2.4 .not installed., nvidia-ml-py") as caught:
        place_workers(gpu_artifact)
    assert '"neuronbert[cuda]"' in str(caught.value.hint)


def visible_to(pid):
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return [one.decode() for one in variables if one.startswith(b"CUDA_VISIBLE_DEVICES=")]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system does not show a process's variables")
def test_each_worker_has_its_gpu_through_every_restart_and_top_names_it(
    echo_artifact, gpu_artifact, four_cpus, monkeypatch, tmp_path, texts, expected
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    use_gpus(monkeypatch, H100, SLICED)
    places = place_workers(gpu_artifact, workers=2)
    # Its workers are real, so they are of the echo artifact, which needs no GPU.
    monkeypatch.setattr("neuronbert.runner.runner.place_workers", lambda *_, **__: places._replace(
        variants=echo_artifact.variants))  # fmt: skip
    wanted = [["CUDA_VISIBLE_DEVICES=GPU-h100"], ["CUDA_VISIBLE_DEVICES=MIG-1"]]
    with Runner(echo_artifact, workers=2, publish=True) as runner:
        assert list(runner.map(texts)) == expected
        pids = [worker["pid"] for worker in runner.stats()["workers"]]
        assert [visible_to(pid) for pid in pids] == wanted
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert list(runner.map(texts)) == expected
        wait_until(lambda: all(one["state"] == "ready" for one in runner.stats()["workers"]))
        again = [worker["pid"] for worker in runner.stats()["workers"]]
        assert not {*pids} & {*again} and [visible_to(pid) for pid in again] == wanted
        wait_until(lambda: any(one["pid"] == os.getpid() for one in top.running()))
        (mine,) = [one for one in top.running() if one["pid"] == os.getpid()]
        assert [row[2] for row in top.describe(mine, mine["at"]).workers] == [place.cores for place in places.places]
