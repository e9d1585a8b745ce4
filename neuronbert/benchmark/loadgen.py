"""MLPerf LoadGen as a second, independent load generator: its clock, its arrivals, its logs and its rules of validity.

load.py measures with clients of its own; a mistake in those would show here. LoadGen's scenarios are
SingleStream (one request out at a time), Server (Poisson arrivals, latency counted from when a request was meant to
come) and Offline (all requests at once). Needs the extra ``loadgen``.
"""

import functools
import json
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Dict, Generic, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert.artifact.files import output_errors
from neuronbert.benchmark.load import Client, Item, error_of
from neuronbert.errors import BackendFailed, UsageError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.own_places import own_folder

SINGLE_STREAM, SERVER, OFFLINE = "SingleStream", "Server", "Offline"
DETAIL_LOG = "mlperf_log_detail.txt"
# LoadGen calls a p99 valid from this many queries on (MLPerf inference rules, early stopping).
LEAST_SERVER_QUERIES = 662
# MLPerf's bound for BERT in the Server scenario.
SERVER_LATENCY_MS = 130.0
# Offline is sized for this multiple of the expected rate, so that it lasts long enough.
OFFLINE_MARGIN = 1.25
# LoadGen lets a file of settings overrule its caller's, by default one in the working directory: here it finds none.
_AUDIT_CONFIG = "/dev/null/audit.config"
_THROUGHPUT = {
    SINGLE_STREAM: "result_qps_with_loadgen_overhead",
    SERVER: "result_completed_samples_per_sec",
    OFFLINE: "result_samples_per_second",
}


class LoadGenResult(NamedTuple):
    """What LoadGen saw. Offline's latencies count from the start of the whole test, so they say nothing."""

    scenario: str
    valid: bool
    why_invalid: str
    throughput_per_s: float
    scheduled_per_s: Optional[float]  # Server: the requests that were to come
    latencies_ms: Dict[int, float]  # percentile → value
    queries: int
    errors: Dict[str, int]  # class name → how many: LoadGen itself knows of no failure
    logs: str


def run_loadgen(
    client: Client[Item],
    items: Sequence[Item],
    *,
    scenario: str,
    folder: Path,
    seconds: float,
    expected_per_s: float,
    in_flight: int,
) -> LoadGenResult:
    """Let LoadGen ask ``client`` for at least ``seconds``.

    ``expected_per_s`` is Server's rate in requests; for the other scenarios it sizes the test. ``in_flight`` is how
    many requests of Offline's one query are handed to ``client`` at a time. LoadGen's logs are written to ``folder``.

    Raises BackendUnavailable without mlcommons-loadgen, BackendFailed when it comes to no result, UsageError without
    items or a rate, OutputError for a folder that cannot be written.
    """
    loadgen = import_loadgen()
    if not items or not expected_per_s > 0:
        raise UsageError(f"LoadGen needs something to ask and a rate above 0, not {len(items)} at {expected_per_s}")
    with output_errors(folder):
        own_folder(folder)  # LoadGen follows links
    test = _Test(loadgen, client, items, in_flight if scenario == OFFLINE else None)
    sut = loadgen.ConstructSUT(test.issue, lambda: None)
    library = loadgen.ConstructQSL(len(items), len(items), lambda _: None, lambda _: None)
    arguments = (
        sut,
        library,
        _test_settings(loadgen, scenario, seconds, expected_per_s),
        _log_settings(loadgen, folder),
    )
    # In a thread, because native code would hold up Ctrl-C until the test ends.
    thread = threading.Thread(target=loadgen.StartTestWithLogSettings, args=(*arguments, _AUDIT_CONFIG))
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        test.abandoned = True
        thread.join()
        raise
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
    return _read_result(folder, scenario, test.errors)


def import_loadgen() -> Any:
    """LoadGen's module. Raises BackendUnavailable, with the command that installs it, where it is missing."""
    with optional_imports(otherwise="leave out --loadgen"):
        import mlperf_loadgen
    return mlperf_loadgen


class _Test(Generic[Item]):
    """LoadGen's system under test: hands queries on and tells LoadGen when each is done."""

    def __init__(self, loadgen: Any, client: Client[Item], items: Sequence[Item], in_flight: Optional[int]):
        self.abandoned = False
        self.errors: Dict[str, int] = {}
        self._loadgen = loadgen
        self._client = client
        self._items = items
        self._room = None if in_flight is None else threading.Semaphore(in_flight)
        self._lock = threading.Lock()

    def issue(self, samples: List[Any]) -> None:
        for sample in samples:
            if self._room is not None:
                self._room.acquire()
            if self.abandoned:
                self._done(sample.id, "Abandoned")
                continue
            try:
                future = self._client.submit(self._items[sample.index])
            except Exception as error:  # counted by its class, and the test goes on
                self._done(sample.id, type(error).__name__)
                continue
            future.add_done_callback(functools.partial(self._finished, sample.id))

    def _finished(self, sample_id: int, future: "Future[object]") -> None:
        self._done(sample_id, error_of(future))

    def _done(self, sample_id: int, error: Optional[str]) -> None:
        if error is not None:
            with self._lock:
                self.errors[error] = self.errors.get(error, 0) + 1
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(sample_id, 0, 0)])
        if self._room is not None:
            self._room.release()


def _test_settings(loadgen: Any, scenario: str, seconds: float, expected_per_s: float) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(seconds * 1000)
    if scenario == SINGLE_STREAM:
        settings.single_stream_expected_latency_ns = int(1e9 / expected_per_s)
    elif scenario == SERVER:
        settings.server_target_qps = expected_per_s
        settings.server_target_latency_ns = int(SERVER_LATENCY_MS * 1e6)
        settings.min_query_count = LEAST_SERVER_QUERIES
    else:
        settings.offline_expected_qps = expected_per_s * OFFLINE_MARGIN
    return settings


def _log_settings(loadgen: Any, folder: Path) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    settings = loadgen.LogSettings()
    settings.log_output = output
    settings.enable_trace = False
    return settings


def _read_result(folder: Path, scenario: str, errors: Dict[str, int]) -> LoadGenResult:
    """The result in the detail log, whose lines are ":::MLLOG" and a JSON object with a key and its value."""
    with open(folder / DETAIL_LOG, encoding="utf-8") as file:
        lines = [json.loads(line[line.index("{") :]) for line in file if "{" in line]
    logged = {line["key"]: line["value"] for line in lines}
    throughput = logged.get(_THROUGHPUT[scenario])
    if throughput is None:
        raise BackendFailed(f"LoadGen's {scenario} came to no result; its log is {folder / DETAIL_LOG}")
    percentiles = {percent: logged.get(f"result_{percent}.00_percentile_latency_ns") for percent in (50, 90, 95, 99)}
    return LoadGenResult(
        scenario=scenario,
        valid=logged["result_validity"] == "VALID" and not errors,
        why_invalid=_why_invalid(logged, errors),
        throughput_per_s=float(throughput),
        scheduled_per_s=logged.get("result_scheduled_samples_per_sec"),
        latencies_ms={percent: value / 1e6 for percent, value in percentiles.items() if value is not None},
        queries=int(logged["result_query_count"]),
        errors=errors,
        logs=str(folder),
    )


def _why_invalid(logged: Mapping[str, Any], errors: Dict[str, int]) -> str:
    """The rules that were broken and the requests that failed; LoadGen's own reason where it is none of these."""
    if logged["result_validity"] == "VALID" and not errors:
        return ""
    rules = {
        "result_perf_constraints_met": f"the latency bound of {SERVER_LATENCY_MS:g} ms was not kept",
        "result_min_duration_met": "too short",
        "result_min_queries_met": "too few queries",
        "early_stopping_met": "too few queries, or too many slow ones, for its confidence",
    }
    broken = [why for key, why in rules.items() if logged.get(key) is False]
    failed = [f"{count} × {name}" for name, count in errors.items()]
    return "; ".join([*broken, *failed]) or str(logged.get("result_invalid_reason", "")).strip()
