"""Timed mode: recorded answers after the modelled time; stages at work at once, a core on one batch at a time."""

import heapq
import random
import threading
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import LENGTH, TinyBert, largest_difference, tiny_inputs  # noqa: E402

from neuronbert import emulator  # noqa: E402
from neuronbert.emulator import core_clock  # noqa: E402
from neuronbert.emulator.arithmetic import Policy  # noqa: E402
from neuronbert.emulator.graph import TensorSpec  # noqa: E402
from neuronbert.emulator.neff import Neff  # noqa: E402
from neuronbert.hardware import device_model  # noqa: E402
from neuronbert.hardware.closed_loop import HostWaits  # noqa: E402


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
    return Neff("1.1", "g", (), (), (), {}, Policy(), stages, False, (), device_model.BERT_BASE, "")


ALONE = core_clock.Neighbours("inf1.xlarge", 1, 1, 1)


@pytest.fixture
def clock(monkeypatch):
    """A clock whose stages take the seconds a test says, without a host's part, and that does not really sleep."""
    ends = []
    monkeypatch.setattr(core_clock, "neff_work", lambda neff, active, release: neff)
    monkeypatch.setattr(core_clock, "entry_seconds", lambda work: 0.0)
    monkeypatch.setattr(core_clock, "host_call_seconds", lambda: 0.0)
    monkeypatch.setattr(core_clock, "host_waits", lambda work, rate, **others: HostWaits())
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
        thread = threading.Thread(target=clock.occupy, args=(cores, neff_of(len(cores)), ALONE, "2.20", 100.0))
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
        made.occupy(range(1), neff_of(1), ALONE, "2.20", 100.0)
    assert [end - 100 for end in made.ends] == [2, 4]


def test_the_host_is_at_work_before_the_core_is(clock, monkeypatch):
    made = clock((2.0,))
    monkeypatch.setattr(core_clock, "host_call_seconds", lambda: 0.5)
    assert occupied_by_threads(made, range(1), 2) == [2.5, 4.5]


def latencies_ms(clock, neighbours, callers, *, neff=None, release="2.20", count=300):
    """Callers of one core group in a closed loop, in modelled time: no thread, no sleep."""
    neff = neff or shaped(6)
    clock._callers[0] = callers
    events = [(0.0, caller, None) for caller in range(callers)]  # when, the order of equals, what waits for the host
    latencies = []
    while len(latencies) < count:
        moment, number, waiting = heapq.heappop(events)
        if waiting is None:
            clock._thread.done_at = called_at = moment
            plan, arrival, wait_s = clock._arrive(0, neff, neighbours, release, moment)
            if clock.is_overtaken(plan, wait_s):
                heapq.heappush(events, (arrival - plan.host_s, number, (called_at, plan, wait_s)))
                continue
        else:
            (called_at, plan, wait_s), arrival = waiting, moment + waiting[1].host_s
        done = clock._schedule(range(neff.pipeline_cores), plan, arrival, wait_s)
        latencies.append((done - called_at) * 1e3)
        heapq.heappush(events, (done, callers + len(latencies), None))
    return latencies[count // 10 :]


def shaped(batch_size, pipeline_cores=1):
    """A compiled BERT-base of 128 tokens."""
    inputs = (("0:0", TensorSpec((batch_size, 128, 768), torch.float32)),)
    return neff_of(pipeline_cores)._replace(inputs=inputs)


SHAPED = shaped(6)


def check_percentiles(work, callers, *, instance, models=1):
    """The clock's are those of ``device_model.predict``, and so is the throughput."""
    neighbours = core_clock.Neighbours(instance, work.active_cores_per_chip, models, models)
    clock, neff = core_clock.CoreClock(16, seed=1), shaped(work.batch_size, work.pipeline_cores)
    found = latencies_ms(clock, neighbours, callers, neff=neff, release=work.release, count=3000)
    expected = device_model.predict(work, models=models, in_flight=callers, instance=instance)
    assert np.mean(found) == pytest.approx(expected.latency_s * 1e3, rel=0.01)
    for percent, seconds in ((50, expected.p50_s), (95, expected.p95_s), (99, expected.p99_s)):
        assert np.percentile(found, percent) == pytest.approx(seconds * 1e3, rel=0.02 if percent < 99 else 0.03)


@pytest.mark.parametrize("release", ["1.13", "2.20"])
@pytest.mark.parametrize("models", [1, 4, 16])
@pytest.mark.parametrize("batch_size", [1, 6])
@pytest.mark.parametrize("callers", [1, 2])
def test_its_percentiles_are_those_of_the_device_model(callers, batch_size, models, release):
    instance = "inf1.6xlarge" if models == 16 else "inf1.xlarge"
    work = device_model.Work(device_model.BERT_BASE, batch_size, 128, 1, min(4, models), release)
    check_percentiles(work, callers, instance=instance, models=models)


@pytest.mark.parametrize("callers, batch_size", [(1, 1), (1, 6), (2, 6)])
def test_they_spread_where_callers_wait_for_the_host(callers, batch_size):
    neighbours = core_clock.Neighbours("inf1.xlarge", 4, 4, 4)
    found = latencies_ms(core_clock.CoreClock(4), neighbours, callers, neff=shaped(batch_size), count=3000)
    assert np.percentile(found, 99) > 1.05 * np.percentile(found, 50)


@pytest.mark.parametrize("stages", [4, 16])
@pytest.mark.parametrize("batch_size", [1, 6])
@pytest.mark.parametrize("callers", [1, 2, 4, 12])
def test_so_are_those_of_a_pipeline_however_many_call(callers, batch_size, stages):
    work = device_model.Work(device_model.BERT_BASE, batch_size, 128, stages, 4, "1.13")
    check_percentiles(work, callers, instance="inf1.6xlarge" if stages == 16 else "inf1.xlarge")


def test_the_waits_are_drawn_alike_in_every_run():
    neighbours = core_clock.Neighbours("inf1.xlarge", 4, 4, 4)
    first, again, other = (latencies_ms(core_clock.CoreClock(4, seed=seed), neighbours, 2) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1, 0.4, 0.8])
def test_a_core_is_as_busy_as_its_batches_make_it_however_they_come(share):
    """As calls see it that come at random."""
    clock, source, moment, shares = core_clock.CoreClock(1), random.Random(1), 0.0, []
    plan = core_clock.BatchPlan(SHAPED, (1.0,), 0.0, 0.0, HostWaits())
    for _ in range(4000):
        moment += source.expovariate(share)
        shares.append(clock._busy[0].at(moment))
        clock._schedule(range(1), plan, moment)
    assert np.mean(shares[200:]) == pytest.approx(share, abs=min(0.02, share / 4))


def test_a_pipeline_of_as_many_callers_as_stages_is_busy_all_the_time():
    """Also where the callers are the limit: 4 s for the host and 2 s for each of 4 stages are a batch each 3 s."""
    clock = core_clock.CoreClock(4)
    plan = core_clock.BatchPlan(SHAPED, (2.0,) * 4, 0.0, 4.0, HostWaits())
    for number in range(200):
        clock._schedule(range(4), plan, 3.0 * (number + 1))
    assert clock._busy[0].at(603.0) == 1.0
    for number in range(200):
        clock._schedule(range(4), plan, 600 + 12.0 * (number + 1))  # one caller
    assert clock._busy[0].at(600 + 12.0 * 200 + 3.0) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("before", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("rest_s", [1.5, 52.0])
def test_soon_after_a_rest_a_core_is_as_busy_as_its_new_load_makes_it(before, rest_s):
    """Otherwise its first second is a fifth faster than the rest, and with it what is measured for six."""
    busy = core_clock.BusyShare()
    for number in range(200):
        busy.add(0.02 / before * number, 0.02)
    ended = 0.02 / before * 199 + 0.02
    assert busy.at(ended) == pytest.approx(before, abs=0.02)
    assert busy.at(ended + 2.0) < 0.2 * busy.at(ended) and busy.at(ended + 52.0) < 1e-6
    for number in range(4):
        busy.add(ended + rest_s + 0.02 * number, 0.02)
    assert busy.at(ended + rest_s + 0.08) == pytest.approx(1.0)


def test_bursts_are_as_busy_as_they_are_on_average():
    """Ten batches, then the time of forty."""
    busy, seen = core_clock.BusyShare(), []
    for number in range(2000):
        moment = number // 10 * 50.0 + number % 10
        seen.append(busy.at(moment))
        busy.add(moment, 1.0)
    assert np.mean(seen[200:]) == pytest.approx(0.2, abs=0.01)


def test_a_pipeline_is_busy_no_longer_than_its_last_batch_is_in_it():
    """Eight callers of four stages ask for more than it can take: what it owes is not paid later."""
    clock = core_clock.CoreClock(4)
    plan = core_clock.BatchPlan(SHAPED, (2.0, 1.0, 1.0, 1.0), 0.0, 7.0, HostWaits())  # 3 s each, every 2 s
    for number in range(200):
        clock._schedule(range(4), plan, 2.0 * number)
    last = 2.0 * 199
    assert clock._busy[0].at(last + 12.0) == 1.0 > clock._busy[0].at(last + 30.0)


def test_a_call_that_waits_long_for_the_host_is_overtaken(clock, monkeypatch):
    made = clock((2.0,))
    monkeypatch.setattr(core_clock, "host_waits", lambda work, rate, **others: HostWaits(contention_s=1e3))
    monkeypatch.setattr(core_clock, "host_call_seconds", lambda: 0.5)
    occupied_by_threads(made, range(1), 1)
    first, second = made.ends
    # Asleep until what others had before they took their places, the host's part, is all that is left; then to its end.
    assert first > 102 and second == first + 0.5 + 2


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
