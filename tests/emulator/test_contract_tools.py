"""Reference §5.5: neuron-ls and neuron-monitor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from contract import contract  # noqa: E402
from models import Dense  # noqa: E402

from neuronbert import emulator  # noqa: E402
from neuronbert.emulator import __main__ as command  # noqa: E402
from neuronbert.emulator import tools  # noqa: E402
from neuronbert.emulator.unknowns import UNKNOWNS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def infer(times=1):
    module = torch.neuron.trace(Dense().eval(), torch.rand(2, 8))
    for _ in range(times):
        module(torch.rand(2, 8))
    emulator.current.runtime()._publish()


@contract("§5.5", "no-holders")
def test_neuron_ls_shows_who_holds_the_cores(torch_neuron):
    assert tools.neuron_ls(emulator.settings())[0]["neuron_processes"] == []
    infer()
    (process,) = tools.neuron_ls(emulator.settings())[0]["neuron_processes"]
    assert process["pid"] == os.getpid() and process["command"] and process["neuron_runtime_version"]


@contract("§5.5", "no-chain")
def test_neuron_ls_shows_the_chain_of_chips(start_emulator):
    start_emulator("inf1.6xlarge")
    devices = tools.neuron_ls(emulator.settings())
    assert [device["connected_to"] for device in devices] == [[1], [0, 2], [1, 3], [2]]
    assert [device["bdf"] for device in devices] == [f"0000:00:1{end}.0" for end in "cdef"]


@contract("§5.5", "wrong-memory")
def test_neuron_ls_shows_eight_gibibytes_and_four_cores_a_chip(torch_neuron):
    (device,) = tools.neuron_ls(emulator.settings())
    assert (device["memory_size"], device["nc_count"], device["neuroncore_ids"]) == (8589934592, 4, [0, 1, 2, 3])


def runtime_data():
    (data,) = tools.neuron_monitor(emulator.settings())["neuron_runtime_data"]
    return data


@contract("§5.5", "all-cores-in-use")
def test_neuron_monitor_shows_the_cores_of_each_process(torch_neuron, monkeypatch):
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "1-2")
    infer()
    assert set(runtime_data()["report"]["neuroncore_counters"]["neuroncores_in_use"]) == {"1", "2"}


@contract("§5.5", "executions-uncounted")
def test_neuron_monitor_counts_executions(torch_neuron):
    infer(3)
    stats = runtime_data()["report"]["execution_stats"]
    assert stats["execution_summary"]["completed"] == 3
    assert stats["latency_stats"]["total_latency"]["p50"] > 0


@contract("§5.5", "no-core-is-busy")
def test_neuron_monitor_shows_how_busy_each_core_is(torch_neuron, monkeypatch):
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "1-2")
    monkeypatch.setattr(tools, "STALE_AFTER_S", 3600.0)
    infer(20)
    in_use = runtime_data()["report"]["neuroncore_counters"]["neuroncores_in_use"]
    assert 0 < in_use["1"]["neuroncore_utilization"] <= 100
    assert in_use["2"]["neuroncore_utilization"] == 0  # the one model is on one core
    monkeypatch.setattr(tools, "STALE_AFTER_S", 0.0)
    in_use = runtime_data()["report"]["neuroncore_counters"]["neuroncores_in_use"]
    assert in_use["1"]["neuroncore_utilization"] == 0  # nothing has run since


@contract("§5.5", "nan-uncounted")
def test_neuron_monitor_counts_numerical_errors(start_emulator):
    start_emulator(faults="nan")
    infer(2)
    stats = runtime_data()["report"]["execution_stats"]
    assert stats["error_summary"]["numerical"] == 2
    assert stats["execution_summary"]["completed_with_num_err"] == 2


@contract("§5.5", "untagged")
def test_neuron_monitor_shows_the_process_tag(torch_neuron, monkeypatch):
    monkeypatch.setenv("NEURON_PROCESS_TAG", "reader")
    infer()
    assert runtime_data()["neuron_runtime_tag"] == "reader"


@contract("§5.5", "other-instance")
def test_neuron_monitor_names_the_instance_and_its_hardware(start_emulator):
    start_emulator("inf1.24xlarge")
    report = tools.neuron_monitor(emulator.settings())
    assert report["instance_info"]["instance_type"] == "inf1.24xlarge"
    hardware = report["neuron_hardware_info"]
    assert (hardware["neuron_device_count"], hardware["neuroncore_per_device_count"]) == (16, 4)
    assert set(report["system_data"]) == {"neuron_hw_counters", "vcpu_usage", "memory_info"}


def test_the_tools_are_commands_of_the_package(torch_neuron, capsys):
    assert command.main(["neuron-ls", "-j"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["nc_count"] == 4
    assert command.main(["neuron-monitor"]) == 0
    assert json.loads(capsys.readouterr().out)["neuron_runtime_data"] == []
    assert command.main(["neuron-ls"]) == 0
    assert "device 0" in capsys.readouterr().out
    assert command.main(["neuron-ls", "--json-output"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [["neuron-top"], ["neuron-ls", "bogus"], ["neuron-ls", "--json"], ["neuron-monitor", "-j"], ["unknowns", "x"]],
)
def test_what_the_tools_do_not_take_is_refused(torch_neuron, capsys, arguments):
    assert command.main(arguments) == 2
    assert capsys.readouterr() == ("", command.USAGE + "\n")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["neuron-ls", "--help"]])
def test_help_is_a_result(capsys, arguments):
    assert command.main(arguments) == 0
    assert capsys.readouterr() == (command.USAGE + "\n", "")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("NEURONBERT_EMULATE", "inf9", "there is no instance type 'inf9'"),
        ("NEURONBERT_EMULATE_UNKNOWNS", "x=y", "nothing is unknown about 'x'"),
    ],
)
def test_a_wrong_variable_is_an_error_of_ours(monkeypatch, capsys, variable, value, words):
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf1.xlarge")
    monkeypatch.setenv(variable, value)
    assert command.main(["neuron-ls"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {words}") and "try: " in err


@pytest.mark.parametrize("arguments", [[], ["unknowns"]])
def test_what_is_unknown_is_listed(arguments, capsys):
    assert command.main(arguments) == 0
    listed = capsys.readouterr().out
    assert all(f"{entry.name}: {entry.question}\n" in listed for entry in UNKNOWNS)
    assert listed.count("    source: ") == sum(len(entry.sources) for entry in UNKNOWNS)


def test_what_is_unknown_is_listed_as_json_without_torch_and_without_an_emulator():
    code = "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['x', 'unknowns', '--json']; " \
        "runpy.run_module('neuronbert.emulator', run_name='__main__')"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    listed = json.loads(done.stdout)
    assert done.returncode == 0 and [entry["name"] for entry in listed] == [entry.name for entry in UNKNOWNS]
    assert listed[0]["default"] == "honoured" and set(listed[0]["behaviours"]) == {"honoured", "ignored"}


def test_a_reader_that_leaves_early_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command_line = [sys.executable, "-m", "neuronbert.emulator"]
    done = subprocess.run(command_line, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_tool_is_put_on_path(torch_neuron):
    import shutil

    assert shutil.which("neuron-ls") is None and shutil.which("neuron-cc") is None
