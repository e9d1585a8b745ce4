import json
import os
import subprocess
import sys

import pytest
from fake_nvml import T4, Card, use_gpus

from neuronbert.errors import UsageError
from neuronbert.hardware import machine


@pytest.fixture()
def cgroups(tmp_path):
    """Builds /proc/self/cgroup and a cgroup tree; returns both roots."""

    def cgroups(membership, files):
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "proc", tmp_path / "cgroup"

    return cgroups


V1 = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4.0),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        # In a container the path is the host's, and its own limit stands at the root.
        ("0::/system.slice/docker-1.scope\n", {"cpu.max": "200000 100000\n"}, 2.0),
        (
            V1,
            {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "300000", "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3.0),
        (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "garbage"}, None),
        ("", {}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_cpu_quota(cgroups, membership, files, quota):
    assert machine.cpu_quota(*cgroups(membership, files)) == quota


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a\n", {"a/memory.max": "1048576\n"}, 1 << 20),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "2097152\n"}, 2 << 20),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("", {}, None),
    ],
)
def test_memory_bytes_is_the_machines_cut_to_the_cgroups_limit(cgroups, membership, files, limit):
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.memory_bytes(*cgroups(membership, files)) == (limit or installed)


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (2.9, 2), (0.2, 1), (64.0, 4)])
def test_usable_cpus_rounds_a_quota_down_to_at_least_one(monkeypatch, quota, expected):
    monkeypatch.setattr(machine, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.usable_cpus() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_usable_cpus_follows_the_affinity_of_a_real_process():
    one = sorted(os.sched_getaffinity(0))[:1]
    code = (
        f"import os; os.sched_setaffinity(0, {one}); from neuronbert.hardware import machine;"
        "print(machine.usable_cpus(), machine.physical_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == [b"1", b"1"]


def test_smt_siblings_are_one_core(tmp_path):
    for cpu, (package, core) in enumerate([(0, 0), (0, 1), (0, 0), (0, 1), (1, 0)]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "core_id").write_text(f"{core}\n")
        (folder / "physical_package_id").write_text(f"{package}\n")
    assert machine._core_ids(tmp_path, {0, 1, 2, 3, 4}) == 3
    assert machine._core_ids(tmp_path, {0, 2}) == 1
    assert machine._core_ids(tmp_path, {0, 9}) is None


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, 2), ("", 2), ("3", 3), ("3,2", 3), (" 1 ", 1), ("all", 2), ("0", 2)]
)
def test_one_thread_computes_on_each_core_unless_the_user_says_otherwise(monkeypatch, asked, expected):
    monkeypatch.setattr(machine, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setattr(machine, "_core_ids", lambda cpus, wanted: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert machine.compute_threads() == expected


@pytest.mark.parametrize("asked", ["2147483648", "99999999999", "9" * 5000])
def test_more_threads_than_libraries_take_are_refused_by_the_variable_that_asks_for_them(monkeypatch, asked):
    monkeypatch.setenv("OMP_NUM_THREADS", f" {asked},2")
    with pytest.raises(UsageError, match=f"OMP_NUM_THREADS must be .* up to 2147483647, not '{asked[:40]}"):
        machine.compute_threads()


def test_this_machine_has_cores_within_its_cpus():
    assert 1 <= machine.physical_cores() <= machine.usable_cpus() <= machine.affinity_cpus() <= os.cpu_count()


CPUINFO = (
    "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n"
)


def test_flags_are_those_that_every_cpu_has():
    assert machine.parse_cpu_flags(CPUINFO) == {"fpu", "avx2"}


def test_arm_features_are_flags():
    assert machine.parse_cpu_flags("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n") >= {"asimddp", "bf16"}


@pytest.mark.parametrize("text", ["", "processor : 0\nhart : 1\n"])
def test_no_flags_where_none_are_listed(text):
    assert machine.parse_cpu_flags(text) == frozenset()


def test_darwin_names_become_linux_names():
    text = (
        "machdep.cpu.features: FPU SSE4.2 AVX1.0\nmachdep.cpu.leaf7_features: AVX2 AVX512F AVX512VNNI\n"
        "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\nhw.optional.neon: 1\nhw.optional.avx512bw: 1\n"
    )
    flags = machine.parse_darwin_flags(text)
    assert flags >= {"avx2", "avx512f", "avx512_vnni", "avx512bw", "asimddp", "asimd"}
    assert "i8mm" not in flags


@pytest.mark.parametrize(
    ("flags", "vnni", "bf16"),
    [
        ({"avx2"}, False, False),
        ({"avx_vnni"}, True, False),
        ({"avx512_vnni", "avx512_bf16"}, True, True),
        ({"amx_bf16"}, False, True),
    ],
)
def test_what_flags_mean(monkeypatch, flags, vnni, bf16):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    assert (machine.has_vnni(), machine.has_bf16()) == (vnni, bf16)


def test_the_fingerprint_is_json_and_imports_nothing_heavy():
    code = (
        "import json, sys; from neuronbert.hardware.machine import environment; print(json.dumps(environment()));"
        "heavy = ('numpy', 'torch', 'transformers', 'openvino', 'onnxruntime', 'tokenizers');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    fingerprint, imported = done.stdout.decode().splitlines()
    assert imported == "[]"
    document = json.loads(fingerprint)
    assert document["python"] == ".".join(map(str, sys.version_info[:3]))
    assert document["cpu_model"] and document["os"] and document["memory_bytes"] > 0
    assert document["libraries"]["numpy"] == __import__("numpy").__version__


def test_the_fingerprint_names_the_gpus_that_may_be_used(monkeypatch):
    use_gpus(monkeypatch, T4, Card("GPU-h100"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = machine.environment()
    assert found["gpus"] == [{"name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "memory_bytes": 80 << 30}]
    assert found["nvidia_driver"] == "570.86.15"
    use_gpus(monkeypatch)
    assert machine.environment()["gpus"] == []
