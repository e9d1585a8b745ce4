"""``neuronbert benchmark URL`` against real servers: every protocol for the tasks that it has words for."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from neuronbert import benchmark_artifact
from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark import sweep
from neuronbert.benchmark.load import Period
from neuronbert.benchmark.report_file import read_report
from neuronbert.cli.main import run
from neuronbert.errors import InputError, UsageError
from server.served import Served, serving

# What each protocol is asked of: the models of tests/server/conftest.py.
FITTING: Dict[str, Tuple[str, ...]] = {
    "hugging-face": ("answers", "labels", "ranks", "tags", "embeds"),
    "open-inference": ("answers", "labels", "ranks", "tags", "embeds"),
    "text-embeddings": ("labels", "embeds"),  # which names no model: the first that can answer does
    "openai": ("embeds",),
    "cohere": ("ranks",),
}
PAIRS = [(protocol, model) for protocol, models in FITTING.items() for model in models]


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(warm_up_s=0.05, window_s=0.1, longest_s=longest_s))


def measured(url: str, model: str, **options: Any) -> Any:
    return benchmark_artifact(url, model=model, longest_s=0.3, **options)


@pytest.mark.parametrize(("protocol", "model"), PAIRS)
def test_every_protocol_asks_what_it_has_words_for(served: Served, protocol: str, model: str) -> None:
    closed = measured(served.url, model, protocol=protocol, concurrency="2")
    opened = measured(served.url, model, protocol=protocol, request_rate="20")
    for document in (closed, opened):
        (point,) = document["points"]
        assert point["errors"] == 0 and point["throughput_avg"] > 0 and point["latency_ms_p50"] > 0
        assert (point["protocol"], point["variant"], point["emulated"]) == (protocol, "echo-fp32", False)
        assert 0 < point["server_device_ms"] < point["server_total_ms"]
        assert document["server"]["model"] == model and len(document["server"]["digest"]) == 64
    assert (closed["points"][0]["concurrency"], opened["points"][0]["offered_qps"]) == (2, 20)


@pytest.mark.parametrize(
    ("protocol", "model"),
    [("openai", "answers"), ("text-embeddings", "tags"), ("cohere", "labels"), ("cohere", "embeds")],
)
def test_the_others_are_refused_with_those_that_fit(served: Served, protocol: str, model: str) -> None:
    with pytest.raises(UsageError, match=f"{protocol} has no words for what {model}") as error:
        measured(served.url, model, protocol=protocol)
    assert "hugging-face or open-inference" in str(error.value.hint)


def test_rankings_of_a_file_go_where_texts_are_ranked(served: Served, tmp_path: Path) -> None:
    lines = tmp_path / "rankings.jsonl"
    lines.write_text(json.dumps({"query": "Who?", "texts": ["Jim Henson", "London"]}) + "\n")
    for protocol in ("text-embeddings", "open-inference", "cohere"):
        document = measured(served.url, "ranks", protocol=protocol, concurrency="1", input_data=lines)
        assert document["points"][0]["errors"] == 0
    with pytest.raises(UsageError, match="hugging-face has no words"):
        measured(served.url, "ranks", input_data=lines)
    # It names no model, and "labels" stands first.
    with pytest.raises(InputError, match="another than ranks answers"):
        measured(served.url, "ranks", protocol="text-embeddings")


def test_the_command_prints_a_table_and_writes_a_report(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    line = ["benchmark", served.url, "--model", "answers", "--concurrency", "1,2", "--longest-s", "0.3"]
    assert run([*line, "--report", str(report), "--latency-p95-ms", "10000"]) == 0
    printed = capsys.readouterr().out
    assert "hugging-face over HTTP  2 clients" in printed and "within a p95 of 10000 ms" in printed
    assert [point["concurrency"] for point in read_report(report)["points"]] == [1, 2]
    assert run([*line, "--batch-size", "4"]) == 2
    assert "--batch-size is the server's own" in capsys.readouterr().err
    assert run(["benchmark", served.url, "--concurrency", "1"]) == 2
    assert "has the models answers, labels, ranks, tags, embeds" in capsys.readouterr().err
    assert run(["benchmark", served.url, "--model", "nobody"]) == 1
    assert "has no model 'nobody'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def narrow(slow_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A slow model behind a queue of one row, for those with a key."""
    with serving(
        tmp_path_factory.mktemp("narrow"),
        *(f"slow={slow_artifact}", "--threads", "1", "--max-queue", "1", "--in-flight-per-group", "1"),
        *("--api-key", "sesame", "--no-access-log"),
    ) as server:
        yield server


def test_refused_and_late_requests_are_errors_by_status(
    narrow: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Of one row each: a question of two would be too large for such a queue (413), if its turn came.
    short = tmp_path / "short.jsonl"
    short.write_text(json.dumps({"question": "Who?", "context": "Jim Henson made the Muppets."}) + "\n")
    with pytest.raises(InputError, match="lets nobody in") as error:
        measured(narrow.url, "slow")
    assert error.value.hint == "set NEURONBERT_API_KEY to a key of it"
    monkeypatch.setenv("NEURONBERT_API_KEY", "sesame")
    (point,) = measured(narrow.url, "slow", request_rate="200", input_data=short)["points"]
    assert point["errors_by_class"]["429"] > 0 and set(point["errors_by_class"]) == {"429"}
    # A batch takes a quarter of a second: alone it is in time, behind another one it is not.
    (late,) = measured(narrow.url, "slow", concurrency="4", timeout_ms=400.0, input_data=short)["points"]
    assert set(late["errors_by_class"]) <= {"429", "504"} and late["errors"] > 0


def test_a_load_is_what_its_clients_keep_in_flight(served: Served) -> None:
    (point,) = measured(served.url, "answers", scenario="offline")["points"]
    assert point["concurrency"] == 32  # one worker, batches of 8, each 4 times


def test_an_artifact_and_a_server_of_it_have_one_fingerprint(served: Served, echo_artifact: Artifact) -> None:
    document = measured(served.url, "answers", concurrency="1")
    assert document["artifact"]["fingerprint"] == echo_artifact.manifest["checkpoint"]["fingerprint"]
    assert document["server"]["digest"] == echo_artifact.manifest["digest"]
