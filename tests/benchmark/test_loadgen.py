"""MLPerf LoadGen as the asker: what it measured, what it calls invalid, and what it cannot see."""

import json
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from neuronbert.benchmark.loadgen import OFFLINE, SERVER, SINGLE_STREAM, run_loadgen
from neuronbert.errors import MissingLibrary, UsageError

pytest.importorskip("mlperf_loadgen")


class Client:
    """Answers at once, from threads of its own; every ``fails``-th request fails."""

    def __init__(self, fails=0):
        self.asked, self.most, self._out, self._fails = 0, 0, 0, fails
        self._pool = ThreadPoolExecutor(4)
        self._lock = threading.Lock()

    def submit(self, item):
        with self._lock:
            self.asked += 1
            self._out += 1
            self.most = max(self.most, self._out)
            number = self.asked
        return self._pool.submit(self._answer, number)

    def _answer(self, number):
        with self._lock:
            self._out -= 1
        if self._fails and number % self._fails == 0:
            raise ValueError("no")


def ran(client, tmp_path, scenario, **options):
    given = {"seconds": 0.3, "expected_per_s": 400.0, "in_flight": 3, **options}
    return run_loadgen(client, list(range(10)), scenario=scenario, folder=tmp_path / "logs", **given)


@pytest.mark.parametrize("scenario", [SINGLE_STREAM, SERVER, OFFLINE])
def test_every_request_is_counted_once(tmp_path, scenario):
    client = Client()
    result = ran(client, tmp_path, scenario)
    assert result.scenario == scenario and result.throughput_per_s > 0 and result.errors == {}
    assert client.asked > 50 and (scenario == OFFLINE or client.asked == result.queries)
    assert result.latencies_ms[50] <= result.latencies_ms[90] <= result.latencies_ms[99]
    summary = (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()
    assert f"Scenario : {scenario}" in summary
    assert ("VALID" in summary and "INVALID" not in summary) == result.valid
    assert bool(result.why_invalid) != result.valid


def test_a_file_of_settings_in_the_working_directory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.config").write_text("*.*.max_query_count = 7\n")
    client = Client()
    ran(client, tmp_path, SINGLE_STREAM)
    assert client.asked > 7


def test_offline_hands_over_no_more_than_fits(tmp_path):
    client = Client()
    ran(client, tmp_path, OFFLINE)
    assert client.most <= 3


def test_failed_requests_make_it_invalid_which_loadgen_would_not_see(tmp_path):
    result = ran(Client(fails=7), tmp_path, SINGLE_STREAM)
    assert result.errors["ValueError"] > 0
    assert not result.valid and "× ValueError" in result.why_invalid


def test_a_client_that_refuses_is_counted_too(tmp_path):
    class Refusing:
        def submit(self, item):
            raise UsageError("no")

    assert ran(Refusing(), tmp_path, SINGLE_STREAM).errors["UsageError"] > 0


def test_cancelled_requests_are_counted(tmp_path):
    class Cancelling:
        def submit(self, item):
            future = Future()
            future.cancel()
            return future

    assert ran(Cancelling(), tmp_path, SINGLE_STREAM).errors["CancelledError"] > 0


def test_a_server_that_is_too_slow_is_invalid_in_words(tmp_path):
    class Slow:
        pool = ThreadPoolExecutor(300)

        def submit(self, item):
            return self.pool.submit(threading.Event().wait, 0.2)

    result = ran(Slow(), tmp_path, SERVER)
    assert not result.valid and "latency bound of 130 ms" in result.why_invalid


def test_nothing_to_ask_is_refused(tmp_path):
    with pytest.raises(UsageError, match="something to ask"):
        run_loadgen(Client(), [], scenario=OFFLINE, folder=tmp_path, seconds=1, expected_per_s=1.0, in_flight=1)


def test_without_loadgen_the_way_to_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingLibrary, match="mlcommons-loadgen is not installed") as caught:
        ran(Client(), tmp_path, OFFLINE)
    assert "neuronbert[loadgen]" in caught.value.hint


def test_the_detail_log_is_lines_of_json(tmp_path):
    ran(Client(), tmp_path, SINGLE_STREAM)
    first = (tmp_path / "logs" / "mlperf_log_detail.txt").read_text().splitlines()[0]
    assert json.loads(first[first.index("{") :])["key"]
