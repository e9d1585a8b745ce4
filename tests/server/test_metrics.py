"""What is scraped of runners, over time: with runners that are none."""

from collections import deque
from types import SimpleNamespace
from typing import Any, Deque, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.runner.documents import Reading
from neuronbert.server import metrics
from neuronbert.server.metrics import COUNTED_AT_ONCE, LEAST_APART_S, STAGES, WINDOW_S, Metrics, _Runners, _window


def worker(busy_s: float) -> Dict[str, Any]:
    return {"worker": 0, "cores": "cpu", "rows": 0, "batches": 0, "device_s": 0.0, "busy_s": busy_s}


@given(st.lists(st.floats(0.0, 200.0), min_size=1, max_size=60))
def test_the_window_is_as_long_as_it_is_called(pauses: List[float]) -> None:
    now: Reading = {"at": 0.0, "workers": []}
    readings: Deque[Reading] = deque([now])
    for pause in pauses:
        now = {"at": now["at"] + pause, "workers": []}
        seconds = now["at"] - _window(readings, now)["at"]
        assert seconds >= min(now["at"], WINDOW_S) - LEAST_APART_S
        assert seconds < WINDOW_S + max(pauses) + LEAST_APART_S
        assert len(readings) <= WINDOW_S / LEAST_APART_S + 2


def test_who_else_scrapes_changes_nothing_and_another_runner_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [1000.0]
    monkeypatch.setattr(metrics, "time", SimpleNamespace(time=lambda: at[0]))
    models = [SimpleNamespace(name="a", digest="same")]
    runners = _Runners(models)  # type: ignore[arg-type]

    def scraped(busy_s: float) -> List[Tuple[Dict[str, str], float]]:
        family = runners._utilisation([(models[0], {"workers": [worker(busy_s)]})])  # type: ignore[list-item]
        return [(sample.labels, sample.value) for sample in family.samples]

    assert scraped(100.0) == []
    for second in range(1, 31):  # half of the time, in which it is busy for the first half of each two seconds
        at[0] = 1000.0 + second
        found = scraped(100.0 + (second + 1) // 2)
        assert scraped(100.0 + (second + 1) // 2) == found  # another's, at once
    assert found == [({"model": "a", "worker": "0", "cores": "cpu"}, 0.5)]
    models[0] = SimpleNamespace(name="a", digest="same")  # loaded again: it counts from 0
    at[0] += 1.0
    assert scraped(0.0) == []
    at[0] += 4.0
    assert [value for _, value in scraped(1.0)] == [0.25]


@pytest.mark.parametrize("answers", [0, 1, COUNTED_AT_ONCE - 1, COUNTED_AT_ONCE, 2 * COUNTED_AT_ONCE + 1])
def test_every_request_is_counted_whenever_it_is_read(answers: int) -> None:
    breakdown = {**dict.fromkeys(STAGES.values(), 2.0), "total_ms": 20.0}
    found = Metrics([])  # type: ignore[arg-type]  # of no model
    for number in range(answers):
        found.answered(100.0 + number, "/", "model", 200, 0.5, [breakdown, breakdown])
        if number % 7 == 0:
            assert found.totals("model").count == 2 * (number + 1)
    text = found.text().decode()
    labels = 'model="model",route="/"'
    for line in (
        f'neuronbert_http_requests_total{{{labels},status="200"}} {answers}.0',
        f"neuronbert_http_request_seconds_count{{{labels}}} {answers}.0",
        f'neuronbert_stage_seconds_count{{model="model",stage="device"}} {2 * answers}.0',
    ):
        assert (line in text) == bool(answers), text
    totals = found.totals("model")
    assert totals.count == 2 * answers
    assert totals.last_at == (100.0 + answers - 1 if answers else 0.0)
    assert totals.answered_s == pytest.approx(0.04 * answers)
