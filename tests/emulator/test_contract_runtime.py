"""Reference §2: the runtime's environment, its cores, and how it fails."""

import os
import re
import signal
import threading
import time

import pytest
from contract import contract, unknown

from neuronbert.emulator.nrt_settings import SettingsRefused, read_settings
from neuronbert.emulator.reservation import CoreRegistry, CoresTaken

VISIBLE, NUMBER, GROUPS = "NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "NEURONCORE_GROUP_SIZES"

# ---------------------------------------------------------------------------- §2.1, §2.2: variables


@contract("§2.1", "num-cores-wins")
def test_visible_cores_win_over_a_number_of_cores():
    settings = read_settings({VISIBLE: "1-2", NUMBER: "4"}, 4)
    assert settings.visible == range(1, 3) and settings.number is None


@pytest.mark.parametrize("text, cores", [("0", [0]), ("0-2", [0, 1, 2]), ("3-5,6", [3, 4, 5, 6]), (" 7 ", [7])])
def test_visible_cores_are_an_index_or_a_range(text, cores):
    assert list(read_settings({VISIBLE: text}, 16).visible) == cores


@contract("§2.1", "gaps-allowed")
@pytest.mark.parametrize("text", ["0,2", "2-3,0-1", "1,1"])
def test_visible_cores_are_contiguous_and_increasing(text):
    with pytest.raises(SettingsRefused, match="contiguous"):
        read_settings({VISIBLE: text}, 16)


@contract("§2.1", "beyond-allowed")
def test_visible_cores_are_within_the_instance():
    with pytest.raises(SettingsRefused, match="beyond nc3"):
        read_settings({VISIBLE: "2-4"}, 4)


@pytest.mark.parametrize("name, text", [(VISIBLE, "a"), (NUMBER, "-1"), (GROUPS, "1,,1"), (GROUPS, "0"),
                                        ("NEURON_RT_EXEC_TIMEOUT", "soon")])  # fmt: skip
def test_variables_that_make_no_sense_are_named(name, text):
    with pytest.raises(SettingsRefused, match=name):
        read_settings({name: text}, 4)


@unknown("num-cores-with-group-sizes", told_by=[SettingsRefused])
def test_group_sizes_with_a_number_of_cores(expected, shown):
    """introducing-libnrt.rst forbids it; aws-neuron-tensorflow's placer.cc lets the number stand and goes on."""
    if expected == "refused":
        with pytest.raises(SettingsRefused, match="must be unset when NEURON_RT_NUM_CORES"):
            read_settings({NUMBER: "4", GROUPS: "2,1"}, 4, shown)
    else:
        settings = read_settings({NUMBER: "4", GROUPS: "2,1"}, 4, shown)
        assert (settings.number, settings.groups) == (4, (2, 1))


@unknown("num-cores-list", told_by=[SettingsRefused])
def test_a_number_of_cores_as_a_list(expected, shown):
    """parallel-ncgs.rst and triton-inference-server/python_backend#182: a list; the configuration guide: a number."""
    if expected == "refused":
        with pytest.raises(SettingsRefused, match="NEURON_RT_NUM_CORES='1,2' is not a whole number"):
            read_settings({NUMBER: "1,2"}, 4, shown)
    else:
        settings = read_settings({NUMBER: "1,2"}, 4, shown)
        assert (settings.number, settings.groups) == (3, (1, 2))
        assert read_settings({NUMBER: "1,2", VISIBLE: "0"}, 4, shown)[:3] == (range(1), None, None)


@unknown("group-sizes")
def test_whether_group_sizes_count(expected, shown):
    """eol-ncgs-env_2.rst says no longer, the core placement guide of SDK 2.5 recommends them."""
    settings = read_settings({GROUPS: "1,2"}, 16, shown)
    wanted = (3, (1, 2)) if expected == "honoured" else (None, None)
    assert (settings.number, settings.groups) == wanted


@unknown("exec-timeout")
def test_the_default_timeout_of_an_inference(expected, shown):
    """The configuration guide: 30 in its table, 2 in its prose."""
    assert read_settings({}, 4, shown).exec_timeout_s == float(expected)
    assert read_settings({"NEURON_RT_EXEC_TIMEOUT": "7"}, 4, shown).exec_timeout_s == 7.0


@pytest.mark.parametrize("given", [{VISIBLE: "0-1"}, {NUMBER: "2"}])
@contract("§2.2", "groups-beyond-given")
def test_group_sizes_stay_within_the_cores_that_are_given(given):
    """placer.cc: "requires … NeuronCores, but there are only … cores available"."""
    assert read_settings({**given, GROUPS: "1,1"}, 4).groups == (1, 1)
    with pytest.raises(SettingsRefused, match="requires 3 NeuronCores, but there are only 2 cores available"):
        read_settings({**given, GROUPS: "2,1"}, 4)


@contract("§2.2", "groups-take-all")
def test_group_sizes_alone_reserve_what_they_add_up_to():
    assert read_settings({GROUPS: "1,2"}, 16).number == 3


@contract("§2.2", "zero-is-unset")
def test_group_sizes_reserve_nothing_beside_a_number_that_is_zero():
    """placer.cc sets the number to their sum only where it is not set; 0 is all."""
    settings = read_settings({NUMBER: "0", GROUPS: "1,1"}, 16)
    assert (settings.number, settings.groups) == (None, (1, 1))


def test_unset_or_zero_means_all():
    assert read_settings({}, 4)[:3] == read_settings({NUMBER: "0"}, 4)[:3] == (None, None, None)


# ---------------------------------------------------------------------------- §2.3: processes

HOLD = """
from pathlib import Path
from neuronbert.emulator.reservation import CoreRegistry, CoresTaken
registry = CoreRegistry(Path({folder!r}), {cores})
try:
    print(registry.{call}, flush=True)
except CoresTaken as error:
    print(error, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(child, tmp_path):
    """A process that reserves cores and keeps them until it is told to end."""

    def hold(call, cores=4):
        process = child(HOLD.format(folder=str(tmp_path), cores=cores, call=call))
        process.said = process.stdout.readline().strip()
        return process

    return hold


@contract("§2.3", "cores-shared")
def test_a_reserved_core_cannot_be_used_by_another_process(holder, tmp_path):
    assert holder("reserve([1])").said == "[1]"
    with pytest.raises(CoresTaken, match="Requested:nc1-nc1 Available:0"):
        CoreRegistry(tmp_path, 4).reserve([1])
    assert CoreRegistry(tmp_path, 4).reserve([0, 2, 3]) == [0, 2, 3]


@contract("§2.3", "half-reserved")
def test_cores_are_reserved_together_or_not_at_all(holder, tmp_path):
    holder("reserve([2])")
    registry = CoreRegistry(tmp_path, 4)
    with pytest.raises(CoresTaken, match="Requested:nc0-nc3 Available:3"):
        registry.reserve(range(4))
    assert [state.held for state in CoreRegistry(tmp_path, 4).states()] == [False, False, True, False]


@contract("§2.3", "children-keep-cores")
def test_a_killed_process_frees_its_cores_at_once(holder, tmp_path):
    process = holder("reserve(range(4))")
    process.send_signal(signal.SIGKILL)
    process.wait()
    registry = CoreRegistry(tmp_path, 4)
    assert registry.reserve(range(4)) == [0, 1, 2, 3]
    registry.release()
    again = CoreRegistry(tmp_path, 4)
    assert again.reserve(range(4)) == [0, 1, 2, 3]
    again.release()


@contract("§2.3", "children-keep-cores")
def test_a_forked_child_does_not_keep_its_parents_cores(tmp_path, child):
    process = child(
        f"""
        import os, time
        from pathlib import Path
        from neuronbert.emulator.reservation import CoreRegistry
        registry = CoreRegistry(Path({str(tmp_path)!r}), 4)
        registry.reserve(range(4))
        if os.fork() == 0:
            os.closerange(0, 3)
            time.sleep(60)
            os._exit(0)
        print("forked", flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    assert process.stdout.readline().strip() == "forked"
    process.wait()
    deadline = time.monotonic() + 10  # the child lets go as soon as it gets a turn
    while any(state.held for state in CoreRegistry(tmp_path, 4).states()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contract("§2.3", "any-neighbours")
def test_a_number_of_cores_gets_neighbours(tmp_path, holder):
    holder("reserve([1])")
    registry = CoreRegistry(tmp_path, 4)
    assert registry.reserve_free(2) == [2, 3]
    registry.release()


@contract("§2.3", "half-reserved-free")
def test_five_processes_of_three_cores_fit_sixteen_and_the_sixth_fails(tmp_path):
    registries = [CoreRegistry(tmp_path, 16) for _ in range(6)]
    taken = [registry.reserve_free(3) for registry in registries[:5]]
    assert taken == [[start, start + 1, start + 2] for start in range(0, 15, 3)]
    with pytest.raises(CoresTaken, match="Requested:3 Available:1"):
        registries[5].reserve_free(3)
    for registry in registries:
        registry.release()


torch = pytest.importorskip("torch")

from models import Dense, reload  # noqa: E402

STATE = torch.rand(2, 8)


def compiled(cores=1, **options):
    arguments = ["--neuroncore-pipeline-cores", str(cores)]
    return torch.neuron.trace(Dense().eval(), STATE, compiler_args=arguments, **options)


def runtime():
    from neuronbert.emulator import current

    return current.runtime()


@contract("§2.3", "takes-one-core")
def test_by_default_a_process_takes_every_core(torch_neuron):
    compiled()(STATE)
    assert runtime().cores == (0, 1, 2, 3)


@contract("§2.1", "environment-read-again")
def test_the_environment_is_read_once_at_first_use(torch_neuron, monkeypatch):
    module = compiled()
    monkeypatch.setenv(VISIBLE, "2")  # after the import, before the first use: this works
    module(STATE)
    monkeypatch.setenv(VISIBLE, "0-3")
    reload(module)
    assert runtime().cores == (2,)


@contract("§2.3", "fork-allowed")
def test_the_runtime_does_not_survive_a_fork(torch_neuron, capfd):
    module = compiled()
    module(STATE)
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            reload(module)(STATE)
            os.write(writing, b"ran")
        except RuntimeError:
            os.write(writing, b"refused")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        assert answers.read() == "refused"
    os.wait()


@contract("§2.3", "two-at-a-time")
def test_one_model_runs_at_a_time_on_a_core(torch_neuron):
    module = reload(compiled())
    module(STATE)
    runtime()._meters[0].lock.acquire()
    thread = threading.Thread(target=module, args=(STATE,), daemon=True)
    thread.start()
    thread.join(0.1)
    waiting = thread.is_alive()
    runtime()._meters[0].lock.release()
    thread.join(60)
    assert waiting and not thread.is_alive()


@contract("§1.1", "stages-on-one-core")
def test_a_pipeline_stage_holds_its_own_core_only(torch_neuron):
    module = reload(compiled(4))
    module(STATE)
    runtime()._meters[3].lock.acquire()
    thread = threading.Thread(target=module, args=(STATE,), daemon=True)
    thread.start()
    thread.join(0.1)
    deadline = time.monotonic() + 60  # until it waits for the last core, it holds one of the others
    free: list = []
    while len(free) < 3:
        assert time.monotonic() < deadline
        for lock in free:
            lock.release()
        free = [lock for lock in (runtime()._meters[core].lock for core in range(3)) if lock.acquire(blocking=False)]
    assert thread.is_alive()
    for core in range(4):
        runtime()._meters[core].lock.release()
    thread.join(60)
    assert not thread.is_alive()


@contract("§1.1", "unequal-stages")
def test_the_stages_of_a_pipeline_hold_equal_weights(torch_neuron):
    from neuronbert.emulator import compiled_ops

    neff = compiled_ops.program_of_payload(next(iter(compiled_ops.payloads_of(compiled(2)).values()))).neff
    linear = [sum(node.kind == "aten::linear" for node in neff.nodes[start:end]) for start, end in neff.stages]
    assert linear == [2, 2]


# ---------------------------------------------------------------------------- §2.4: failures

LINE = re.compile(r"\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d\.\d{4} \d+:\d+ ERROR {3}NRT:nrt_\w+ +\S")


@contract("§2.4", "other-cores-text")
def test_cores_that_are_taken_are_named(torch_neuron, holder, monkeypatch, capfd):
    module = compiled()
    folder = runtime().settings.directory / "inf1.xlarge"
    folder.mkdir(parents=True)
    other = CoreRegistry(folder, 4)
    other.reserve([1])
    monkeypatch.setenv(VISIBLE, "1")
    with pytest.raises(RuntimeError, match="The PyTorch Neuron Runtime could not be initialized"):
        module(STATE)
    other.release()
    line = capfd.readouterr().err.splitlines()[-1]
    assert "NRT:nrt_allocate_neuron_cores" in line
    assert line.endswith("NeuronCore(s) not available - Requested:nc1-nc1 Available:0")


@contract("§2.4", "other-line-form")
def test_the_runtimes_lines_have_the_documented_form(start_emulator, capfd):
    start_emulator(faults="cores-taken")
    with pytest.raises(RuntimeError, match="could not be initialized. Neuron Driver issues are logged"):
        compiled()(STATE)
    assert LINE.match(capfd.readouterr().err.splitlines()[-1])


@contract("§2.4", "count-as-range")
@pytest.mark.parametrize("environment, requested", [({}, "4"), ({NUMBER: "2"}, "2")])
def test_cores_that_were_not_named_are_counted(torch_neuron, monkeypatch, capfd, environment, requested):
    """aws-neuron-sdk#453, two gunicorn workers on an instance of four cores."""
    module = compiled()
    folder = runtime().settings.directory / "inf1.xlarge"
    other = CoreRegistry(folder, 4)
    other.reserve(range(4))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="could not be initialized"):
        reload(module)
    other.release()
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.endswith(f"NeuronCore(s) not available - Requested:{requested} Available:0")


@unknown("visible-cores-beyond")
def test_visible_cores_that_do_not_exist(start_emulator, monkeypatch, capfd, expected, shown):
    """No source has the text."""
    start_emulator(unknowns=shown.setting)
    monkeypatch.setenv(VISIBLE, "2-4")
    with pytest.raises(RuntimeError, match="could not be initialized"):
        compiled()(STATE)
    line = capfd.readouterr().err.splitlines()[-1]
    assert {
        "invalid": "NEURON_RT_VISIBLE_CORES='2-4' goes beyond nc3",
        "not-available": "Requested:nc2-nc4 Available:2",
    }[expected] in line


@contract("§2.2", "groups-not-deprecated")
def test_group_sizes_are_being_deprecated(torch_neuron, monkeypatch, capfd):
    """kserve#2714, torch-neuron 1.12.1: a line on stderr of every process, and nothing else."""
    module = compiled()
    module(STATE)
    assert "deprecated" not in capfd.readouterr().err
    runtime().close()
    monkeypatch.setenv(GROUPS, "1,1")
    reload(module)(STATE)
    reload(module)(STATE)
    warning = (
        "[W runtime.cpp:167] Warning: NEURONCORE_GROUP_SIZES is being deprecated. "
        "Please see Neuron documentation for more details. (function initialize)"
    )
    assert capfd.readouterr().err.splitlines().count(warning) == 1


def test_a_failed_start_at_the_first_inference_is_inside_a_torchscript_error(start_emulator, capfd):
    """aws-neuron-sdk#364: the model had been traced in this process."""
    start_emulator(faults="cores-taken")
    with pytest.raises(RuntimeError, match="The following operation failed in the TorchScript interpreter"):
        compiled()(STATE)


def test_a_failed_start_in_torch_jit_load_is_not(start_emulator, capfd):
    """aws-neuron-sdk#718."""
    start_emulator(faults="cores-taken")
    with pytest.raises(RuntimeError) as caught:
        reload(compiled())
    assert str(caught.value).startswith("The PyTorch Neuron Runtime could not be initialized. Neuron Driver issues are")


@pytest.mark.parametrize(
    "fault, text",
    [("device-memory", "status=4 message=Allocation Failure"), ("invalid-model", "status=2 message=Invalid"),
     ("neff-version", "status=10")],
)  # fmt: skip
def test_a_model_that_is_refused_fails_in_torch_jit_load(start_emulator, capfd, fault, text):
    """aws-neuron-sdk#625 (allocation), huggingface/optimum-neuron#114 (invalid)."""
    start_emulator(faults=fault)
    module = compiled()
    with pytest.raises(RuntimeError, match=f"^Could not load the model {text}"):
        reload(module)


@contract("§2.1", "syslog-ignored")
def test_log_lines_go_where_log_location_says(start_emulator, monkeypatch, capfd):
    start_emulator()
    monkeypatch.setenv("NEURON_RT_LOG_LOCATION", "syslog")
    module = compiled(4)
    monkeypatch.setenv(VISIBLE, "0-1")
    with pytest.raises(RuntimeError):
        module(STATE)
    assert "TDRV" not in capfd.readouterr().err
    assert "TDRV" in (runtime().settings.directory / "inf1.xlarge" / "syslog").read_text()


@contract("§2.4", "quiet-driver")
def test_a_missing_driver_is_named(start_emulator, capfd):
    start_emulator(faults="no-driver")
    with pytest.raises(RuntimeError, match="could not be initialized"):
        compiled()(STATE)
    text = "Unable to determine Neuron Driver version. Please check aws-neuron-dkms package is installed."
    assert text in capfd.readouterr().err


@contract("§2.4", "quiet-old-driver")
def test_an_old_driver_is_named(start_emulator, capfd):
    start_emulator(faults="old-driver")
    with pytest.raises(RuntimeError, match="could not be initialized"):
        compiled()(STATE)
    text = "This runtime requires Neuron Driver version 2.0 or greater. Please upgrade aws-neuron-dkms package."
    assert text in capfd.readouterr().err


@contract("§2.4", "too-wide-quiet")
def test_a_model_wider_than_the_visible_cores_logs_its_four_lines(torch_neuron, monkeypatch, capfd):
    module = compiled(4)
    monkeypatch.setenv(VISIBLE, "0-1")
    with pytest.raises(RuntimeError):
        module(STATE)
    errors = capfd.readouterr().err
    for text in ("Could not find VNC id", "Failed to create shared io",
                 "Failed to stage graph: kelf-a.json to NeuronCore", "Failed to load NN: "):  # fmt: skip
        assert text in errors


@contract("§2.4", "too-wide-status")
def test_a_model_wider_than_the_visible_cores_is_invalid(torch_neuron, monkeypatch, capfd):
    module = compiled(4)
    monkeypatch.setenv(VISIBLE, "0-1")
    with pytest.raises(RuntimeError, match="Could not load the model status=2 message=Invalid"):
        module(STATE)


def fill(monkeypatch, bytes_per_core):
    monkeypatch.setattr("neuronbert.emulator.device_memory.bytes_per_core", lambda neff: bytes_per_core)


@contract("§2.4", "endless-memory")
def test_device_memory_runs_out(torch_neuron, monkeypatch):
    fill(monkeypatch, 3 * 1024**3)
    source = compiled()
    modules = [reload(source) for _ in range(2)]
    assert modules[0](STATE).shape == modules[1](STATE).shape
    with pytest.raises(RuntimeError, match="Could not load the model status=4 message=Allocation Failure"):
        reload(source)


@contract("§2.4", "memory-unsaid")
def test_the_driver_says_how_much_memory_was_missing(torch_neuron, monkeypatch):
    fill(monkeypatch, 5 * 1024**3)
    source = compiled()
    first = reload(source)
    with pytest.raises(RuntimeError):
        reload(source)
    assert first(STATE).shape == STATE.shape
    syslog = (runtime().settings.directory / "inf1.xlarge" / "syslog").read_text()
    form = r"neuron:mc_alloc: device mempool \[0:0\] total \d+ occupied \d+ needed \d+ available \d+"
    assert re.search(form, syslog)


@contract("§3", "own-memory-only")
def test_a_chips_memory_is_shared_by_processes(torch_neuron, monkeypatch):
    fill(monkeypatch, 5 * 1024**3)
    module = compiled()
    other = CoreRegistry(runtime().settings.directory / "inf1.xlarge", 4)
    other.reserve([3])
    other.annotate({3: {"pid": 1, "memory_bytes": 4 * 1024**3}})
    monkeypatch.setenv(VISIBLE, "0")
    with pytest.raises(RuntimeError, match="status=4"):
        module(STATE)
    other.release()


def test_each_chip_has_memory_of_its_own(start_emulator, monkeypatch):
    start_emulator("inf1.6xlarge")
    fill(monkeypatch, 2 * 1024**3)
    source = compiled()
    modules = [reload(source) for _ in range(16)]
    first, *others = [module(STATE) for module in modules]
    assert len(others) == 15 and all(torch.equal(first, other) for other in others)


@contract("§2.4", "no-timeout-error")
def test_a_timeout_is_status_five(start_emulator, monkeypatch):
    start_emulator(faults="timeout")
    monkeypatch.setenv("NEURON_RT_EXEC_TIMEOUT", "0.01")
    with pytest.raises(RuntimeError, match="Failed to execute the model status=5 message=Timeout Exceeded"):
        compiled()(STATE)


@contract("§2.1", "timeout-not-waited")
def test_a_timeout_comes_after_exec_timeout_seconds(start_emulator, monkeypatch):
    start_emulator(faults="timeout")
    monkeypatch.setenv("NEURON_RT_EXEC_TIMEOUT", "7")
    module = compiled()
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(RuntimeError):
        module(STATE)
    assert slept == [7.0]


@contract("§2.4", "no-numerical-error")
def test_a_numerical_error_is_status_1003(start_emulator):
    start_emulator(faults="numerical-error")
    with pytest.raises(RuntimeError, match="status=1003 message=Numerical Error"):
        compiled()(STATE)


@contract("§2.4", "any-neff")
def test_a_newer_neff_is_refused(torch_neuron, monkeypatch, capfd):
    from neuronbert.emulator import neuron_cc

    build = neuron_cc.build_neff
    monkeypatch.setattr(neuron_cc, "build_neff", lambda neff: build(neff._replace(version="2.0")))
    module = compiled()
    with pytest.raises(RuntimeError, match="Could not load the model status=10"):
        module(STATE)
    assert "NEFF version mismatch supported: 1.1 received: 2.0" in capfd.readouterr().err


@contract("§2.1", "no-hang")
def test_a_hang_never_ends(start_emulator, monkeypatch):
    start_emulator(faults="hang")
    module = compiled()
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 1000:
            raise RuntimeError("still hanging")

    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(RuntimeError, match="still hanging"):
        module(STATE)


@contract("§1.3", "dead-runtime-raises")
def test_a_dead_runtime_gives_constant_outputs_and_no_error(start_emulator):
    start_emulator(faults="dead-runtime")
    module = compiled()
    one, other = module(STATE), module(torch.rand(2, 8))
    assert torch.equal(one, other) and one.unique().numel() == 1


@contract("§1.3", "dead-runtime-silent")
def test_a_dead_runtime_warns_on_stderr_while_it_loads(start_emulator, capfd):
    """aws-neuron-sdk#325."""
    start_emulator(faults="dead-runtime")
    module = reload(compiled())
    text = (
        "[W neuron_op_v2.cpp:133] Warning: Neuron runtime could not be initialized. "
        "Model was not sent to NeuronCore (function load)"
    )
    assert text in capfd.readouterr().err
    module(STATE)
    assert text not in capfd.readouterr().err


@contract("§7.6", "nan-hidden")
def test_nan_comes_without_an_error(start_emulator):
    start_emulator(faults="nan")
    assert torch.isnan(compiled()(STATE)).all()
