"""The stress tool counts what differs from a quiet run, keeps the evidence, and goes on where it was cut off."""

import json
import threading
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import pytest
from logits import logits as logits_of

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert_tools.agreement.episode import Counts, Episode, keep_quiet_answers, run_episode
from neuronbert_tools.agreement.subjects import Opened, subjects
from neuronbert_tools.stress_agreement import Totals


class Lying:
    """Logits that depend on the token alone; the ``wrong``-th answer is off by ``by``."""

    precision = "fp32"

    def __init__(self, wrong: int = -1, by: float = 0.0):
        self.concurrency = 2
        self._lock, self._answers, self._wrong, self._by = threading.Lock(), 0, wrong, by

    def run(self, batch: Batch) -> Outputs:
        start = (batch.input_ids % 97 / 10).astype(np.float32)
        with self._lock:
            if self._answers == self._wrong:
                start = start.copy()
                start[0, 0] += np.float32(self._by)
            self._answers += 1
        return logits_of(start, -start)

    def close(self) -> None:
        pass


@pytest.fixture()
def episode(tmp_path) -> Episode:
    return Episode("liar", tmp_path, windows=10, loads=2, threads=2, streams=2, seed=0)


def opener(*sessions: Lying):
    waiting = list(sessions)

    @contextmanager
    def open_next(threads: int, streams: int) -> Iterator[Opened]:
        yield Opened(waiting.pop(0), ThroughputPlan(streams=streams, rows=4, tokens=2048), streams)

    return open_next


def test_equal_answers_are_counted_and_leave_no_evidence(episode):
    assert keep_quiet_answers(opener(Lying(), Lying()), episode) is True
    counts = run_episode(opener(Lying(), Lying()), episode)
    assert counts._replace(seconds=0.0) == Counts(loads=2, windows=40)  # 10 windows, twice a load
    assert not (episode.folder / "evidence").exists()


def test_a_quiet_run_that_does_not_repeat_itself_is_told(episode):
    assert keep_quiet_answers(opener(Lying(), Lying(wrong=0, by=1e-6)), episode) is False


def test_one_wrong_answer_is_one_different_window_with_its_evidence(episode):
    keep_quiet_answers(opener(Lying(), Lying()), episode)
    counts = run_episode(opener(Lying(), Lying(wrong=3, by=10.0)), episode)
    assert (counts.different, counts.rounded) == (1, 0)
    (facts_path,) = (episode.folder / "evidence").glob("*.json")
    facts = json.loads(facts_path.read_text())
    assert (facts["subject"], facts["load"], max(facts["row_differences"])) == ("liar", 1, 10.0)
    assert [max(again) for again in facts["row_differences_again"]] == [0.0, 0.0, 0.0]
    with np.load(facts_path.with_suffix(".npz")) as arrays:
        difference = arrays["got/start_logits"] - arrays["quiet/start_logits"]
        assert float(difference[0, 0]) == 10.0
        assert np.array_equal(arrays["again0/start_logits"], arrays["quiet/start_logits"])
        assert arrays["input_ids"].shape == difference.shape


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_different(episode, value):
    keep_quiet_answers(opener(Lying(), Lying()), episode)
    assert run_episode(opener(Lying(wrong=0, by=value), Lying()), episode).different == 1


def test_a_small_difference_is_rounding(episode):
    keep_quiet_answers(opener(Lying(), Lying()), episode)
    counts = run_episode(opener(Lying(wrong=0, by=1e-4), Lying()), episode)
    assert (counts.different, counts.rounded) == (0, 1)
    assert not (episode.folder / "evidence").exists()


def test_totals_go_on_where_they_were_cut_off(tmp_path):
    Totals(tmp_path).add("a", Counts(1, 10, 0, 1, 2.0))
    again = Totals(tmp_path)
    again.add("a", Counts(2, 20, 1, 0, 3.0))
    again.add("b", Counts(1, 5))
    assert Totals(tmp_path).counts == {"a": Counts(3, 30, 1, 1, 5.0), "b": Counts(1, 5)}
    assert Totals(tmp_path).sum() == Counts(4, 35, 1, 1, 5.0)


def test_the_reference_is_a_subject_in_both_its_forms(echo_artifact):
    assert sorted(subjects("demo", [echo_artifact])) == [
        "echo-fp32",
        "exported echo-fp32",
        "reference",
        "reference after the export of echo-fp32",
        "reference, all threads on a row",
    ]
