"""Timed mode: recorded answers after the modelled time; stages at work at once, a core on one batch at a time."""

import threading
import time

import pytest

torch = pytest.importorskip("torch")

from models import LENGTH, TinyBert, largest_difference, tiny_inputs  # noqa: E402

from neuronbert import emulator  # noqa: E402
from neuronbert.emulator import core_clock  # noqa: E402
from neuronbert.emulator.neff import Neff  # noqa: E402
from neuronbert.hardware import device_model  # noqa: E402


@pytest.fixture
def recorded(start_emulator, tmp_path):
    """A compiled file, and a recording of what it says of three batches."""
    start_emulator()
    module = torch.neuron.trace(TinyBert().eval(), tiny_inputs())
    torch.jit.save(module, str(tmp_path / "model.pt"))
    with emulator.recording(str(tmp_path / "logits")):
        answers = [module(*tiny_inputs(seed=seed)) for seed in range(3)]
    return tmp_path, answers


def start_timed(start_emulator, folder, release="2.20"):
    start_emulator(release=release, recorded=str(folder / "logits"), directory=folder / "timed")
    return torch.jit.load(str(folder / "model.pt"))


def test_recorded_answers_come_back(start_emulator, recorded):
    folder, answers = recorded
    module = start_timed(start_emulator, folder)
    for seed, answer in enumerate(answers):
        assert largest_difference(module(*tiny_inputs(seed=seed)), answer) == 0
    assert emulator.state()["timed"] is True and emulator.state()["release"] == "2.20"


def test_a_row_is_known_in_whatever_batch_it_comes(start_emulator, recorded):
    folder, answers = recorded
    module = start_timed(start_emulator, folder)
    mixed = [torch.stack([first[1], second[0]]) for first, second in zip(tiny_inputs(seed=0), tiny_inputs(seed=2))]
    start, _ = module(*mixed)
    assert torch.equal(start[0], answers[0][0][1]) and torch.equal(start[1], answers[2][0][0])


def test_an_unknown_input_is_an_error(start_emulator, recorded):
    module = start_timed(start_emulator, recorded[0])
    with pytest.raises(RuntimeError, match="knows only the inputs recorded in"):
        module(*tiny_inputs(seed=99))


def test_a_recording_may_begin_before_the_emulator_is_used(start_emulator, recorded):
    folder, _ = recorded
    start_emulator(directory=folder / "again")  # its runtime comes up with the first use of torch.neuron
    with emulator.recording(str(folder / "logits")):
        answer = torch.jit.load(str(folder / "model.pt"))(*tiny_inputs(seed=7))
    emulator.stop()
    module = start_timed(start_emulator, folder)
    assert largest_difference(module(*tiny_inputs(seed=7)), answer) == 0


def test_recordings_add_up(start_emulator, recorded):
    folder, answers = recorded
    start_emulator(record=str(folder / "logits"), directory=folder / "again")
    added = torch.jit.load(str(folder / "model.pt"))(*tiny_inputs(seed=7))
    emulator.stop()
    module = start_timed(start_emulator, folder)
    assert largest_difference(module(*tiny_inputs(seed=0)), answers[0]) == 0
    assert largest_difference(module(*tiny_inputs(seed=7)), added) == 0


# ---------------------------------------------------------------------------- the clock, without a model


def neff_of(stages):
    return Neff("1.1", "g", (), (), (), {}, None, stages, False, (), device_model.BERT_BASE, "")


@pytest.fixture
def clock(monkeypatch):
    """A clock whose stages take the seconds a test says, and that does not really sleep."""
    ends = []
    monkeypatch.setattr(core_clock, "neff_work", lambda neff, active, release: neff)
    monkeypatch.setattr(core_clock, "entry_seconds", lambda work: 0.0)
    monkeypatch.setattr(core_clock, "sleep_until", ends.append)
    monkeypatch.setattr(core_clock.time, "perf_counter", lambda: 100.0)

    def make(seconds, cores=4):
        monkeypatch.setattr(core_clock, "stage_seconds", lambda work: seconds)
        made = core_clock.CoreClock(cores)
        made.ends = ends
        return made

    return make


def occupied_by_threads(clock, cores, count):
    for _ in range(count):
        thread = threading.Thread(target=clock.occupy, args=(cores, neff_of(len(cores)), 1, "2.20", 100.0))
        thread.start()
        thread.join()
    return [round(end - 100, 6) for end in clock.ends]


def test_a_core_takes_one_batch_at_a_time(clock):
    assert occupied_by_threads(clock((2.0,)), range(1), 3) == [2, 4, 6]


def test_different_cores_work_at_once(clock):
    made = clock((2.0,))
    occupied_by_threads(made, range(1), 1)
    assert occupied_by_threads(made, range(1, 2), 1) == [2, 2]


def test_the_stages_of_a_pipeline_work_at_once(clock):
    assert occupied_by_threads(clock((3.0, 1.0, 1.0, 1.0)), range(4), 4) == [6, 9, 12, 15]


def test_one_thread_waits_for_its_own_batch(clock):
    made = clock((2.0,))
    for _ in range(2):
        made.occupy(range(1), neff_of(1), 1, "2.20", 100.0)
    assert [end - 100 for end in made.ends] == [2, 4]


def test_sleeping_ends_at_its_moment():
    moment = time.perf_counter() + 0.05
    core_clock.sleep_until(moment)
    assert time.perf_counter() >= moment


def test_the_length_is_read_from_the_hidden_state(start_emulator):
    from neuronbert.emulator import compiled_ops

    start_emulator()
    module = torch.neuron.trace(TinyBert().eval(), tiny_inputs())
    neff = compiled_ops.program_of_payload(next(iter(compiled_ops.payloads_of(module).values()))).neff
    work = core_clock.neff_work(neff, 1, "1.17")
    assert (work.batch_size, work.sequence_length, work.pipeline_cores, work.release) == (2, LENGTH, 1, "1.17")
    assert (work.shape.layers, work.shape.hidden, work.shape.heads) == (1, 8, 2)
