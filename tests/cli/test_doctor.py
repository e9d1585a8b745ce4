import configparser
import http.server
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert.backends import backend_module
from neuronbert.backends.neuron.core_groups import CORE_VARIABLES
from neuronbert.cli.doctor import hub, neuron_log
from neuronbert.cli.doctor.examination import CHECKS, examine, render
from neuronbert.cli.doctor.facts import COMPILING, ENGINES, REQUIRED, TVM, Facts, gather, hub_cache, with_emulation
from neuronbert.cli.doctor.machine_checks import FAIL, GIB, OK, THREAD_VARIABLES, WARN, Check
from neuronbert.hardware.neuron import FIRST_REAL_NEURON

# A busy machine is no failure.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {"torch_neuron": "torch-neuron", "neuron_cc": "neuron-cc"}

HEALTHY = Facts(
    python=(3, 12, 1),
    libraries={
        "click": "8.1.7",
        "fastjsonschema": "2.21.0",
        "numpy": "2.1.0",
        "tokenizers": "0.20.0",
        "openvino": "2026.4.1",
        "onnxruntime": "1.20.0",
        "torch": "2.5.0+cpu",
        "transformers": "5.0.0",
        "huggingface_hub": "1.0.0",
        "nncf": "2.14.0",
        "onnx": "1.17.0",
    },
    cpu_model="Some CPU",
    cpu_flags=frozenset({"avx2", "avx512_vnni", "avx512_bf16"}),
    affinity_cpus=4,
    usable_cpus=4,
    physical_cores=4,
    memory_bytes=16 * GIB,
    available_bytes=8 * GIB,
    folder="somewhere",
    disk_free_bytes=100 * GIB,
    hub_cache="cache",
    hub_cache_exists=True,
)
TVM_HERE = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
INF1 = replace(
    HEALTHY,
    python=(3, 10, 4),
    libraries={
        **HEALTHY.libraries,
        "numpy": "1.22.2",
        "torch": "1.13.1",
        "torch-neuron": "1.13.1.2.11.13.0",
        "neuron-cc": "1.24.0.0",
        "tensorflow": "1.15.5.post1",
        "protobuf": "3.20.1",
    },
    memory_bytes=48 * GIB,
    neuron_devices=("/dev/neuron0",),
    inferentia_chips=1,
    driver_version="2.24.13.0",
    neuron_ls='[{"neuron_device": 0, "nc_count": 4, "neuron_processes": []}]',
)


def libraries(*without, **versions):
    """A healthy machine's libraries but for these; ``torch_neuron`` stands for torch-neuron."""
    kept = {name: version for name, version in HEALTHY.libraries.items() if name not in without}
    return {"libraries": {**kept, **{NAMES.get(name, name): version for name, version in versions.items()}}}


def inf1_without(*without):
    return {"libraries": {name: version for name, version in INF1.libraries.items() if name not in without}}


def inf1_with(**versions):
    return {"libraries": {**INF1.libraries, **versions}}


def env(**variables):
    return {"environ": variables}


def check(name, facts, **changes):
    return CHECKS[name](replace(facts, **changes))


def test_a_healthy_cpu_machine_and_a_healthy_inf1_machine_have_nothing_to_mend():
    assert {item.status for item in examine(HEALTHY).checks} == {OK}
    assert {item.status for item in examine(INF1).checks} == {OK}
    assert [item.mend for item in examine(HEALTHY).checks] == [None] * len(CHECKS)


def test_this_machine_can_be_examined():
    checks = examine().checks
    assert [item.name for item in checks] == list(CHECKS)
    by_name = {item.name: item for item in checks}
    assert by_name["python"].status == OK
    assert by_name["libraries"].status == OK and "numpy" in by_name["libraries"].found
    json.dumps(examine().as_dict())


CASES = [
    ("python", {"python": (3, 7, 9)}, FAIL, "3.7.9: neuronbert needs 3.8 or newer", "Python 3.12"),
    ("python", {"python": (3, 8, 1)}, OK, "the inf1 stack", None),
    ("python", {"python": (3, 13, 0)}, OK, "the current stack", None),
    ("python", {"python": (3, 14, 0)}, WARN, "newer than what neuronbert is tested with", None),
    ("libraries", libraries("tokenizers"), FAIL, "tokenizers is not installed", "pip install --upgrade neuronbert"),
    ("libraries", libraries(numpy="1.19.5"), FAIL, "numpy 1.19.5 is too old, >=1.20 is needed", "pip install"),
    (
        "openvino",
        libraries(openvino="2023.3.0"),
        FAIL,
        "openvino 2023.3.0 is too old",
        'pip install "neuronbert[openvino]"',
    ),
    ("openvino", libraries("openvino"), OK, "not installed (onnxruntime is)", 'pip install "neuronbert[openvino]"'),
    (
        "openvino",
        libraries("openvino", "onnxruntime"),
        FAIL,
        "nor any other engine",
        'pip install "neuronbert[openvino]"',
    ),
    (
        "onnxruntime",
        libraries("onnxruntime"),
        OK,
        "not installed (openvino is)",
        'pip install "neuronbert[onnxruntime]"',
    ),
    (
        "compiling",
        libraries("nncf", "onnx"),
        WARN,
        "nncf is not installed; onnx is not installed",
        "neuronbert[compile]",
    ),
    ("compiling", libraries(transformers="4.20.1"), WARN, "transformers 4.20.1 is too old", "neuronbert[compile]"),
    (
        "compiling",
        libraries(*COMPILING),
        OK,
        "answers from artifacts, it cannot make them",
        "neuronbert[compile]",
    ),
    ("tvm", {}, OK, "not installed (only --backend tvm and what it made need it)", None),
    ("tvm", {**libraries(**TVM_HERE), "c_compiler": "/usr/bin/gcc"}, OK, "0.1.14.post1, links with /usr/bin/gcc", None),
    ("tvm", libraries(**TVM_HERE), WARN, "no C compiler: models can be loaded, but none compiled", "apt install gcc"),
    (
        "tvm",
        libraries(**{**TVM_HERE, "apache-tvm-ffi": "0.1.15"}),
        WARN,
        "apache-tvm-ffi 0.1.15 is too new, >=0.1.14,<0.1.15 is needed",
        "neuronbert[tvm]",
    ),
    ("cpu", {"cpu_flags": frozenset()}, WARN, "its flags cannot be read", None),
    ("cpu", {"cpu_flags": frozenset({"sse2"})}, WARN, "no AVX2", "AVX2"),
    ("cpu", {"cpu_flags": frozenset({"avx2", "avx512f"})}, WARN, "no VNNI, so int8 sums overflow 16 bits", "7 bits"),
    ("cpu", {"cpu_flags": frozenset({"avx2", "avx_vnni"})}, OK, "Some CPU: VNNI (int8 exact and fast)", None),
    ("cpu", {"cpu_flags": frozenset({"avx2", "avx_vnni", "amx_int8", "amx_bf16"})}, OK, "AMX (int8 and bf16", None),
    ("cpu", {"architecture": "aarch64", "cpu_flags": frozenset({"asimddp", "bf16"})}, OK, "asimddp, bf16", None),
    ("disk", {"folder": None}, FAIL, "the working directory no longer exists", "cd into one that does"),
    ("threads", env(OMP_NUM_THREADS="8"), WARN, "OMP_NUM_THREADS=8 starts more threads", "export OMP_NUM_THREADS=4"),
    ("threads", env(MKL_NUM_THREADS="1"), WARN, "MKL_NUM_THREADS=1 leaves 3 cores idle", "unset MKL_NUM_THREADS"),
    ("threads", env(OMP_NUM_THREADS="all"), WARN, "OMP_NUM_THREADS=all is not a number", "unset OMP_NUM_THREADS"),
    ("threads", env(OMP_NUM_THREADS="4,2"), OK, "4 CPUs on 4 cores; OMP_NUM_THREADS=4,2", None),
    (
        "threads",
        {"usable_cpus": 1, "physical_cores": 1, "cpu_quota": 1.5},
        OK,
        "1 of 4 CPUs on 1 core (the container's quota",
        None,
    ),
    ("threads", {"physical_cores": 2}, OK, "4 CPUs on 2 cores", None),
    ("threads", {"physical_cores": 2, **env(OMP_NUM_THREADS="2")}, OK, "4 CPUs on 2 cores; OMP_NUM_THREADS=2", None),
    ("memory", {"available_bytes": GIB // 2}, WARN, "16.0 GiB usable, only 0.5 GiB free now", "stop other processes"),
    ("memory", {"available_bytes": None}, OK, "16.0 GiB usable", None),
    ("memory", {"memory_bytes": GIB // 2}, WARN, "0.5 GiB usable, only 0.5 GiB free", "larger machine"),
    ("disk", {"disk_free_bytes": GIB}, WARN, "only 1.0 GiB free in somewhere", "free some space"),
    ("disk", {"folder_writable": False}, WARN, "somewhere is read-only for this user", "OUTPUT"),
    (
        "hub",
        {**env(HF_HUB_OFFLINE="1"), "hub_cache_exists": False},
        WARN,
        "HF_HUB_OFFLINE is set and the cache",
        "unset HF_HUB_OFFLINE",
    ),
    ("hub", env(TRANSFORMERS_OFFLINE="true"), OK, "offline by TRANSFORMERS_OFFLINE", None),
    ("hub", env(HF_HUB_OFFLINE="0"), OK, "online, without a token", None),
    (
        "hub",
        {"hub_unreachable": "no route"},
        WARN,
        "https://huggingface.co cannot be reached (no route)",
        "HTTPS_PROXY",
    ),
    ("hub", env(HF_TOKEN="hf_secret"), OK, "online, with a token", None),
    (
        "torch-neuron",
        libraries(torch_neuron="1.0"),
        FAIL,
        "torch-neuron 1.0: a placeholder",
        "pip.repos.neuron.amazonaws.com",
    ),
    (
        "torch-neuron",
        libraries(neuron_cc="1.0.post1"),
        FAIL,
        "neuron-cc 1.0.post1: a placeholder",
        "uninstall -y torch-neuron neuron-cc",
    ),
    (
        "torch-neuron",
        {"inferentia_chips": 1},
        WARN,
        "not installed, though this machine has Inferentia",
        "torch-neuron==1.13.1.*",
    ),
    (
        "torch-neuron",
        {"inferentia_chips": 1},
        WARN,
        "not installed, though this machine has Inferentia",
        "with Python 3.8 to 3.10 (torch-neuron has no wheels for 3.12): python -m pip install",
    ),
    ("torch-neuron", {}, OK, "not installed (only inf1", None),
    ("neuron-cc", {}, OK, "not installed", None),
    ("neuron-cc", {**libraries(neuron_cc="1.24.0.0"), "emulated": "inf1.xlarge"}, OK, "emulated", None),
    (
        "torch-neuron",
        libraries(torch_neuron="1.13.1.2.11.13.0"),
        FAIL,
        "needs torch 1.13.1, and torch 2.5.0+cpu is installed",
        "torch==1.13.1",
    ),
    (
        "inferentia",
        {"inferentia_chips": 4},
        FAIL,
        "4 chips on the PCI bus and no /dev/neuron0",
        "aws-neuronx-dkms=2.24.*",
    ),
    ("inferentia", env(NEURONBERT_EMULATE="inf1.xlarge"), OK, "NEURONBERT_EMULATE=inf1.xlarge stands in", None),
    (
        "neuron env",
        env(NEURON_RT_NUM_CORES="4", NEURONCORE_GROUP_SIZES="4"),  # libnrt's note forbids it, placer.cc does it
        WARN,
        "disagree on whether the runtime allows these together",
        "unset NEURONCORE_GROUP_SIZES",
    ),
    (
        "neuron env",
        env(NEURON_RT_NUM_CORES="4", NEURON_RT_VISIBLE_CORES="0-3"),
        WARN,
        "NEURON_RT_NUM_CORES has no effect",
        "unset NEURON_RT_NUM_CORES",
    ),
    (
        "neuron env",
        env(NEURON_RT_VISIBLE_CORES="0,2"),
        FAIL,
        "NEURON_RT_VISIBLE_CORES=0,2 means nothing: it is a core, or an increasing range without gaps",
        "export NEURON_RT_VISIBLE_CORES",
    ),
    (
        "neuron env",
        env(NEURONCORE_GROUP_SIZES="1,1,1,1"),
        WARN,
        "go by NEURON_RT_VISIBLE_CORES",
        "export NEURON_RT_VISIBLE_CORES=0-3",
    ),
    (
        "neuron env",
        env(NEURONCORE_GROUP_SIZES="1"),
        WARN,
        "go by NEURON_RT_VISIBLE_CORES",
        "export NEURON_RT_VISIBLE_CORES=0",
    ),
    (
        "neuron env",
        env(NEURONCORE_GROUP_SIZES="4x1"),
        FAIL,
        "NEURONCORE_GROUP_SIZES=4x1 means nothing: it is the sizes of groups, separated by commas",
        "NEURONCORE_GROUP_SIZES=1,1,1,1",
    ),
    (
        "neuron env",
        env(NEURONCORE_GROUP_SIZES="4,4", NEURON_RT_VISIBLE_CORES="0-3"),
        FAIL,
        "want 8 cores and there are 4",
        "unset NEURONCORE_GROUP_SIZES",
    ),
    (
        "neuron env",  # placer.cc: "requires … NeuronCores, but there are only … cores available"
        env(NEURON_RT_NUM_CORES="2", NEURONCORE_GROUP_SIZES="1,1,1,1"),
        FAIL,
        "want 4 cores and there are 2",
        "unset NEURONCORE_GROUP_SIZES",
    ),
    (
        "neuron env",
        env(NEURON_RT_VISIBLE_CORES="0-1", NEURON_RT_NUM_CORES="4", NEURONCORE_GROUP_SIZES="1,1,1,1"),
        FAIL,
        "want 4 cores and there are 2",
        "unset NEURONCORE_GROUP_SIZES",
    ),
    (
        "neuron env",
        env(NEURON_RT_NUM_CORES="abc"),
        FAIL,
        "NEURON_RT_NUM_CORES=abc means nothing: it is a number of cores",
        "export NEURON_RT_NUM_CORES=4",
    ),
    (
        "neuron env",  # parallel-ncgs.rst and nrt-configurable-parameters.rst
        env(NEURON_RT_NUM_CORES="1,1"),
        WARN,
        "disagree on whether the runtime takes a list",
        "export NEURON_RT_NUM_CORES=2",
    ),
    ("neuron env", env(NEURON_RT_NUM_CORES="0"), OK, "NEURON_RT_NUM_CORES=0", None),
    (
        "neuron env",  # 0 is all: whether the groups fit, the instance says
        env(NEURON_RT_NUM_CORES="0", NEURONCORE_GROUP_SIZES="1,1"),
        WARN,
        "disagree on whether the runtime allows these together",
        "unset NEURONCORE_GROUP_SIZES",
    ),
    (
        "neuron env",
        env(NEURONCORE_GROUP_SIZES="4", NEURON_RT_VISIBLE_CORES="4-7"),
        OK,
        "NEURON_RT_VISIBLE_CORES=4-7",
        None,
    ),
    ("neuron env", env(NEURON_RT_NUM_CORES="1"), OK, "NEURON_RT_NUM_CORES=1", None),
]


@pytest.mark.parametrize(("name", "changes", "status", "found", "mend"), CASES)
def test_what_each_check_finds(name, changes, status, found, mend):
    result = check(name, HEALTHY, **changes)
    assert (result.name, result.status) == (name, status), result
    assert found in result.found
    assert (result.mend is None) if mend is None else (mend in result.mend)


INF1_CASES = [
    ("compiling", inf1_without("nncf", "onnx"), OK, "torch 1.13.1", None),
    ("torch-neuron", inf1_without("neuron-cc"), OK, "runs models and compiles none", "neuron-cc"),
    ("torch-neuron", inf1_without("torch"), FAIL, "torch is not installed", "torch==1.13.1"),
    (
        "inferentia",
        {"driver_version": "2.25.1.0"},
        FAIL,
        "driver 2.25.1.0 does not drive Inferentia 1",
        # What apt demands of a downgrade, and of a package that docs/inf1.md has held.
        "apt-get install -y --allow-downgrades --allow-change-held-packages aws-neuronx-dkms=2.24.*; sudo rmmod neuron",
    ),
    (
        "inferentia",
        {"driver_version": "2.25.1.0", "package_manager": "yum"},
        FAIL,
        "driver 2.25.1.0 does not drive Inferentia 1",
        "yum remove -y aws-neuronx-dkms; sudo yum install -y aws-neuronx-dkms-2.24.*; sudo rmmod neuron",
    ),
    (
        "inferentia",
        {"driver_version": "2.3.26.0"},
        FAIL,
        "driver 2.3.26.0 is of the old package aws-neuron-dkms",
        "apt-get remove -y aws-neuron-dkms; sudo apt-get install -y --allow-downgrades",
    ),
    ("inferentia", {"driver_version": None}, OK, "1 device, driver version unknown", None),
    ("neuron-cc", {}, OK, "tensorflow 1.15.5.post1, protobuf 3.20.1, numpy 1.22.2", None),
    ("neuron-cc", inf1_with(numpy="1.24.4"), FAIL, "numpy 1.24.4 (>=1.22.2,<1.24 is needed)", '"numpy==1.22.2"'),
    ("neuron-cc", inf1_with(numpy="1.21.6"), FAIL, "numpy 1.21.6 (>=1.22.2,<1.24 is needed)", '"numpy==1.22.2"'),
    ("neuron-cc", inf1_with(protobuf="4.21.0"), FAIL, "protobuf 4.21.0 (<4 is needed)", '"protobuf==3.20.1"'),
    ("neuron-cc", inf1_with(tensorflow="2.8.0"), FAIL, "tensorflow 2.8.0 (>=1.15,<1.16 is needed)", "neuron-cc[tens"),
    (
        "neuron-cc",
        inf1_without("tensorflow", "protobuf"),
        FAIL,
        "tensorflow is not installed (>=1.15,<1.16 is needed), protobuf is not installed",
        "neuron-cc[tensorflow]",
    ),
    ("neuron-cc", {"memory_bytes": 8 * GIB}, WARN, "8.0 GiB of memory are few to compile with", "--no-device"),
    ("neuron-cc", {"memory_bytes": 0}, OK, "tensorflow 1.15.5.post1", None),
    (
        "inferentia",
        {"unreachable_devices": ("/dev/neuron0",)},
        FAIL,
        "may not open /dev/neuron0",
        "chmod a+rw /dev/neuron0",
    ),
    (
        "inferentia",
        env(NEURONBERT_EMULATE="inf1.xlarge"),
        WARN,
        "yet NEURONBERT_EMULATE=inf1.xlarge is set",
        "unset NEURONBERT_EMULATE",
    ),
    ("neuron cores", {}, OK, "all free", None),
    ("neuron cores", {"neuron_ls": None}, WARN, "there is no /opt/aws/neuron/bin/neuron-ls", "neuronx-tools=2.25.*"),
    ("neuron cores", {"neuron_ls": "error: no devices"}, WARN, "neuron-ls says 'error: no devices'", None),
    (
        "neuron cores",
        {"neuron_ls": '[{"neuron_device": 0, "neuron_processes": [{"pid": 42, "command": "serve"}]}]'},
        WARN,
        "process 42 (serve) on device 0",
        "kill 42",
    ),
]


@pytest.mark.parametrize(("name", "changes", "status", "found", "mend"), INF1_CASES)
def test_what_each_check_finds_on_inf1(name, changes, status, found, mend):
    result = check(name, INF1, **changes)
    assert (result.name, result.status) == (name, status), result
    assert found in result.found
    assert (result.mend is None) if mend is None else (mend in result.mend)


def test_a_token_is_never_shown():
    report = render(examine(replace(HEALTHY, environ={"HF_TOKEN": "hf_secret"})).checks)
    assert "with a token" in report and "hf_secret" not in report


def test_a_check_that_breaks_says_so_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(CHECKS, "cpu", lambda facts: 1 / 0)
    checks = {item.name: item for item in examine(HEALTHY).checks}
    assert checks["cpu"].status == WARN
    assert checks["cpu"].found == "could not be examined: ZeroDivisionError: division by zero"
    assert checks["threads"].status == OK


def test_it_works_where_numpy_does_not():
    """Every backend imports numpy: without it no engine can be named, and the rest of the report is as usual."""
    code = (
        "import sys; sys.modules['numpy'] = None; from neuronbert.cli.doctor.examination import examine; "
        "print([check.name for check in examine().checks if check.status == 'fail'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'engines'" in done.stdout and "'libraries'" not in done.stdout


def test_a_machine_that_cannot_be_looked_at_is_reported(monkeypatch):
    def broken():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "getcwd", broken)
    (only,) = examine().checks
    assert only.status == FAIL and "OSError" in only.found


def test_without_a_working_directory_all_else_is_looked_at(monkeypatch):
    def deleted():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", deleted)
    checks = {check.name: check for check in examine().checks}
    assert set(checks) == set(CHECKS)
    assert checks["disk"].status == FAIL and "no longer exists" in checks["disk"].found


@UNTIMED
@given(st.dictionaries(st.sampled_from([*THREAD_VARIABLES, *CORE_VARIABLES]), st.text()))
def test_no_value_of_a_variable_breaks_a_check(environ):
    assert not [
        item for item in examine(replace(HEALTHY, environ=environ)).checks if "could not be examined" in item.found
    ]


def test_the_report_lines_up_and_counts():
    checks = [Check("a", OK, "fine"), Check("long name", WARN, "hm", "do this"), Check("b", FAIL, "broken", "do that")]
    assert render(checks).splitlines() == [
        "ok    a          fine",
        "warn  long name  hm",
        "                 try: do this",
        "fail  b          broken",
        "                 try: do that",
        "1 ok, 1 to look at, 1 broken",
    ]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/x"}, "/x"),
        ({"HF_HOME": "/h"}, os.path.join("/h", "hub")),
        ({"XDG_CACHE_HOME": "/c"}, os.path.join("/c", "huggingface", "hub")),
        ({}, os.path.expanduser(os.path.join("~", ".cache", "huggingface", "hub"))),
    ],
)
def test_the_hubs_cache_is_where_huggingface_hub_keeps_it(environ, expected):
    assert hub_cache(environ) == expected


def test_the_bounds_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")

    def bounds(section, option):
        lines = [line for line in setup[section][option].splitlines() if re.match(r"[\w-]+>=", line)]
        return {name: ">=" + version for name, version in (line.split(">=") for line in lines)}

    extras = "options.extras_require"
    assert bounds("options", "install_requires") == REQUIRED
    assert {**bounds(extras, "openvino"), **bounds(extras, "onnxruntime")} == ENGINES
    assert bounds(extras, "compile") == COMPILING
    assert {line.split(">")[0]: ">" + line.split(">")[1] for line in setup[extras]["tvm"].split()} == TVM
    assert backend_module("torchscript").REQUIREMENTS["torch"] == COMPILING["torch"]
    assert bounds(extras, "inf1")["torch-neuron"] == FIRST_REAL_NEURON


class Silent(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(int(self.path.strip("/") or 404))

    def log_message(self, *_):
        pass


@pytest.fixture()
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Silent) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


@pytest.mark.parametrize("status", [404, 401, 503])
def test_a_hub_that_answers_anything_is_there(server, status):
    assert hub.why_unreachable(f"{server}/{status}") is None


def test_a_hub_that_cannot_be_reached_says_why(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # and does not listen
        port = listening.getsockname()[1]
        assert "refused" in str(hub.why_unreachable(f"http://127.0.0.1:{port}"))
    assert hub.why_unreachable("no address") is not None
    monkeypatch.setattr(hub, "_ask", lambda *_: threading.Event().wait(5))
    assert hub.why_unreachable("http://127.0.0.1", timeout_s=0.05) == "no answer within 0.05 s"


@pytest.mark.parametrize("offline", [False, True])
def test_the_hub_is_asked_unless_a_variable_says_offline(monkeypatch, offline):
    asked = []
    monkeypatch.setattr(hub, "why_unreachable", lambda address: asked.append(address) or "no route")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if offline else "0")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert gather().hub_unreachable == (None if offline else "no route")
    assert asked == ([] if offline else ["http://mirror"])


@pytest.mark.parametrize(
    ("variable", "module", "found", "mend"),
    [
        ("inf1.xlarge", "psutil", "psutil is not installed", "neuronbert[emulator]"),
        ("inf9.huge", "none", "there is no instance type 'inf9.huge'", "one of inf1.xlarge"),
    ],
)
def test_an_emulator_that_cannot_be_has_another_advice_than_what_was_just_done(
    monkeypatch, variable, module, found, mend
):
    monkeypatch.setitem(sys.modules, "neuronbert.emulator.tools", None) if module == "none" else None
    if module == "psutil":
        monkeypatch.delitem(sys.modules, "neuronbert.emulator.tools", raising=False)
        monkeypatch.setitem(sys.modules, "psutil", None)
        find_spec = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "psutil" else find_spec(name))
    facts = with_emulation(replace(HEALTHY, environ={"NEURONBERT_EMULATE": variable}))
    check = CHECKS["inferentia"](facts)
    assert check.status == FAIL and found in check.found and mend in str(check.mend)
    assert f"export NEURONBERT_EMULATE={variable}" not in str(check.mend)


def test_what_is_sent_along_holds_no_variable():
    document = examine(replace(HEALTHY, environ={"HF_TOKEN": "hf_secret"})).as_dict()
    assert {"checks", "python", "libraries", "cpu_flags", "hub_unreachable"} <= set(document)
    assert "hf_secret" not in json.dumps(document) and "environ" not in document


# ---- a log


TAKEN = "ERROR   NRT:nrt_allocate_neuron_cores  NeuronCore(s) not available - Requested:nc1-nc1 Available:0"


@pytest.mark.parametrize("before", [0, 60_000, neuron_log.BLOCK_CHARACTERS - 50, 250_000])
def test_a_text_far_in_a_line_without_end_is_found_and_shown(before):
    (found,) = neuron_log.diagnose(["x" * before + TAKEN + "y" * 3 * neuron_log.BLOCK_CHARACTERS])
    assert found.name == "cores-taken" and "NeuronCore(s) not available" in found.line
    assert len(found.line) <= neuron_log.SHOWN_CHARACTERS + len("……")


def test_a_text_is_found_wherever_in_a_long_log_and_the_first_line_of_it_is_shown():
    ordinary = ["2023-Jan-09 INFO:Neuron:compiling\n"] * 10_000
    lines = [*ordinary, f"first {TAKEN}\n", *ordinary, f"second {TAKEN}\n", "Could not open the nd3\n", *ordinary]
    assert [one.name for one in neuron_log.diagnose(lines)] == ["cores-taken", "devices-with-gaps"]
    assert neuron_log.diagnose(lines)[0].line == f"first {TAKEN}"
    assert neuron_log.diagnose(ordinary) == neuron_log.diagnose([]) == []


def test_a_line_that_two_failures_have_is_the_more_specific_ones():
    """aws-neuron-sdk#369: a full list of transfers also ends in "status=4"."""
    line = "No more pages for ring type: 1; Could not load the model status=4 message=Allocation Failure"
    assert [one.name for one in neuron_log.diagnose([line])] == ["transfer-lists-full"]


def test_the_cause_comes_before_what_follows_from_it():
    """aws-neuron-sdk#434 and #89: the cause is not the line that says most."""
    lines = [
        "TDRV:exec_consume_infer_status_notifications Missing infer_status notification: (0:0)",
        "action=INFER_ERROR_SUBTYPE_MODEL; error_id=8; error string:Event double set",
        "nrtd[1]: [TDRV:tdrv_destroy] TDRV not initialized",
        "nrtd[1]: [TDRV:tdrv_init_mla_phase1] Could not open the device index:0",
    ]
    expected = ["no-device", "device-error", "timeout", "runtime-does-not-start"]
    assert [one.name for one in neuron_log.diagnose(lines)] == expected
