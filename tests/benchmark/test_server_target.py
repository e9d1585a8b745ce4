"""A sweep of a server that is made up: what it says of itself, how it refuses, and what the report makes of it."""

import json
import resource
from pathlib import Path
from typing import Any, Iterator

import pytest
from made_server import DIGEST, STAGES, MadeServer, info, made_server

from neuronbert import benchmark_artifact
from neuronbert.benchmark import server_target, sweep
from neuronbert.benchmark.load import MOST_CLIENTS, Period
from neuronbert.benchmark.report_file import read_report
from neuronbert.benchmark.server_target import mean_stages, most_connections
from neuronbert.cli.benchmark_table import benchmark_text
from neuronbert.errors import ArtifactChanged, InputError, NeuronBertError, UsageError
from neuronbert.planner.planning import plan


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(warm_up_s=0.1, window_s=0.1, longest_s=longest_s))
    monkeypatch.delenv("NEURONBERT_API_KEY", raising=False)


@pytest.fixture()
def made() -> Iterator[MadeServer]:
    with made_server() as server:
        yield server


def measured(made: MadeServer, **options: Any) -> Any:
    loads = {} if {"scenario", "request_rate"} & set(options) else {"concurrency": "1,2"}
    return benchmark_artifact(made.url, **{**loads, "longest_s": 0.3, **options})


def refused(made: MadeServer, **options: Any) -> NeuronBertError:
    """The error of a sweep for which nothing was measured."""
    with pytest.raises(NeuronBertError) as error:
        measured(made, **options)
    assert len(made.asked) <= 1
    return error.value


# ---------------------------------------------------------------------------- what is measured


def test_a_report_of_a_server(made: MadeServer, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    document = measured(made, report=path, timeout_ms=500.0, instance_type="g6.xlarge")
    assert read_report(path) == json.loads(json.dumps(document))
    assert document["server"]["url"] == made.url and document["server"]["digest"] == DIGEST
    assert document["artifact"]["fingerprint"] == "f" * 64 and document["asked"]["emulation"] is None
    assert [point["concurrency"] for point in document["points"]] == [1, 2]
    for point in document["points"]:
        assert (point["variant"], point["engine"], point["n_models"]) == ("neuron-b1", "neuron", 4)
        assert (point["batch_size"], point["protocol"]) == (None, "hugging-face")
        assert (point["server_device_ms"], point["server_total_ms"]) == (5, 21)
        assert point["throughput_avg"] > 0 and point["cost_per_1m_inf"] > 0 and point["instance_type"] == "g6.xlarge"
    path, headers, body = made.asked[0]
    assert path == "/models/answers" and set(body["inputs"]) == {"question", "context"}
    assert (headers["x-request-timeout-ms"], headers["cache-control"]) == ("500.0", "no-store")
    assert "authorization" not in headers


def test_the_open_loop_and_the_server_scenario(made: MadeServer) -> None:
    assert [point["offered_qps"] for point in measured(made, request_rate="20,40")["points"]] == [20, 40]
    offline, server = measured(made, scenario="server")["points"]
    assert offline["concurrency"] == 16  # 4 workers, batches of 1, each 4 times
    assert server["offered_qps"] == pytest.approx(0.6 * offline["throughput_avg"], rel=0.01)


def test_a_key_is_shown(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONBERT_API_KEY", "first second")
    measured(made)
    assert {headers["authorization"] for _, headers, _ in made.asked} == {"Bearer first"}


def test_errors_are_counted_by_status(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_target.ServerTarget, "_try_out", lambda *_: None)
    made.answer = (429, {"error": "full"})
    (point,) = measured(made, concurrency="1")["points"]
    assert set(point["errors_by_class"]) == {"429"} and point["errors"] > 0 and point["latency_ms_p50"] is None


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "html"])
def test_an_emulated_server_is_labelled_in_every_form(made: MadeServer, tmp_path: Path, suffix: str) -> None:
    made.said["/info"] = (200, info(emulated=True))
    document = measured(made, report=tmp_path / f"report.{suffix}")
    report = (tmp_path / f"report.{suffix}").read_text(encoding="utf-8")
    assert all(point["emulated"] for point in document["points"]) and document["artifact"]["emulated"]
    assert "EMULATED" in benchmark_text(document)
    if suffix == "csv":
        header, *lines = report.splitlines()
        assert {line.split(",")[header.split(",").index("emulated")] for line in lines} == {"True"}
    else:
        assert ("EMULATED" if suffix != "json" else '"emulated": true') in report


def test_another_server_is_measured_by_what_its_user_says(made: MadeServer) -> None:
    made.said["/info"] = (200, {"model_id": "BAAI/bge-small"})
    made.headers = {}
    hint = refused(made).hint
    assert hint is not None and "--task TASK" in hint
    document = measured(made, task="feature-extraction", protocol="text-embeddings")
    assert {path for path, _, _ in made.asked} == {"/embed"}
    assert document["artifact"]["fingerprint"] is None and document["points"][0]["server_total_ms"] is None
    assert isinstance(refused_fresh(made, task="feature-extraction", protocol="openai"), UsageError)  # it has no name
    assert "no task 'sums'" in str(refused_fresh(made, task="sums"))


def refused_fresh(made: MadeServer, **options: Any) -> NeuronBertError:
    made.asked.clear()
    return refused(made, **options)


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("path", "answer", "words", "hint"),
    [
        ("/info", (401, {}), "lets nobody in", "NEURONBERT_API_KEY"),
        ("/info", (500, {}), "answers 500", "the URL"),
        ("/info", (200, {"version": "1", "models": []}), "no model at the moment", "/v2/health/ready"),
        ("/v2/health/ready", (503, {}), "not ready", "/v2/health/ready answers 200"),
    ],
)
def test_a_server_that_cannot_be_measured(made: MadeServer, path: str, answer: Any, words: str, hint: str) -> None:
    made.said[path] = answer
    error = refused(made)
    assert isinstance(error, InputError) and error.exit_code == 1
    assert words in error.message and hint in str(error.hint)


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "--model"), (401, "NEURONBERT_API_KEY"), (503, "wait"), (429, "nobody"), (400, "input")]
)
def test_what_it_does_not_answer_is_said_before_anything_is_measured(made: MadeServer, status: int, hint: str) -> None:
    made.answer = (status, {"error": "because\nof this"})
    error = refused(made)
    assert isinstance(error, InputError) and f"/models/answers answers {status}" in error.message
    assert "because" in error.message and "\n" not in error.message and hint in str(error.hint)


def test_a_model_that_is_not_there_and_several(made: MadeServer) -> None:
    assert "no model 'labels'" in refused(made, model="labels").message
    first, second = info(), info(name="labels")
    made.said["/info"] = (200, {**first, "models": first["models"] + second["models"]})
    error = refused(made)
    assert isinstance(error, UsageError) and error.message.endswith("has the models answers, labels")
    made.headers["X-Artifact-Digest"] = "e" * 64
    assert "another than labels answers" in refused(made, model="labels").message
    assert "is for question-answering" in refused_fresh(made, model="labels", task="feature-extraction").message


def test_what_is_the_servers_own_is_refused_by_name(made: MadeServer) -> None:
    error = refused(made, batch_size="1", workers="2", busy_wait=True, loadgen=True)
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert error.message.startswith("--batch-size and --workers and --busy-wait and --loadgen are the server's own")
    for name in ("threads", "sequence_length", "neuroncore_pipeline_cores", "variant", "precision", "trusted_key"):
        assert f"--{name.replace('_', '-')} is the server's own" in refused(made, **{name: "1"}).message
    assert not made.asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "grpc"}, "no protocol 'grpc'"),
        ({"protocol": "cohere"}, "cohere has no words for what answers"),
        ({"timeout_ms": 0.0}, "--timeout-ms must be above 0"),
        ({"timeout_ms": float("inf")}, "--timeout-ms must be a day at most"),
        ({"concurrency": "5000"}, "at most 4,096 clients"),
        ({"instance_type": "x9.huge"}, "no price for 'x9.huge'"),
    ],
)
def test_options_that_cannot_be(made: MadeServer, options: Any, words: str) -> None:
    error = refused(made, **options)
    assert isinstance(error, UsageError) and words in error.message


@pytest.mark.parametrize("url", ["http://", "http://host:nine", "https://me:secret@host", "http://host/?key=1"])
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(UsageError) as error:
        benchmark_artifact(url)
    assert "secret" not in str(error.value)


def test_nobody_answers() -> None:
    with pytest.raises(InputError, match="http://127.0.0.1:9 does not answer"):
        benchmark_artifact("http://127.0.0.1:9")


def test_an_artifact_has_no_protocol(echo_artifact: Any) -> None:
    with pytest.raises(UsageError, match="--protocol and --timeout-ms are for a server's URL"):
        benchmark_artifact(echo_artifact, protocol="openai", timeout_ms=1.0)


def test_more_clients_than_connections_are_left_out(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_target, "most_connections", lambda: 1)
    document = measured(made, concurrency="1,2")
    assert [point["concurrency"] for point in document["points"]] == [1]
    assert ["ulimit -n" in reason for reason in document["left_out"]] == [True]
    assert "ulimit -n" in refused_fresh(made, concurrency="2").message


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 960), (1, 1), (1 << 20, MOST_CLIENTS), (resource.RLIM_INFINITY, MOST_CLIENTS)]
)
def test_connections_are_files(files: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most_connections() == most


# ---------------------------------------------------------------------------- while it is measured, and afterwards


def test_an_artifact_that_is_replaced_meanwhile_ends_the_sweep(made: MadeServer, tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    def replace(done: int, _: int) -> None:
        if done == 1:
            made.said["/info"] = (200, info(digest="e" * 64))

    with pytest.raises(ArtifactChanged, match="answers was replaced while it was measured: dddd.* now"):
        measured(made, report=report, on_point=replace)
    assert not report.exists()
    made.headers["X-Artifact-Digest"] = "e" * 64
    with pytest.raises(UsageError, match="of another artifact"):
        measured(made, report=report)
    made.said["/info"], made.headers["X-Artifact-Digest"] = (200, info()), DIGEST
    lines = []
    assert len(measured(made, report=report, progress=lines.append)["points"]) == 2
    assert [line.split()[0] for line in lines[1:]] == ["2/2"]


def test_a_server_that_goes_ends_the_sweep(made: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(done: int, _: int) -> None:
        if done == 1:
            made.said["/info"] = (503, {})

    with pytest.raises(InputError, match="503"):
        measured(made, on_point=gone)


def test_unlike_things_are_not_compared(made: MadeServer, tmp_path: Path, echo_artifact: Any) -> None:
    before = tmp_path / "before.json"
    document = measured(made, report=before)
    for point in document["points"]:
        point["intervals"] = {name: [0.0, 1e9] for name in point["intervals"]}
    before.write_text(json.dumps(document))
    lines = []
    made.said["/info"], made.headers["X-Artifact-Digest"] = (200, info(digest="e" * 64)), "e" * 64
    measured(made, compare=before, progress=lines.append)
    assert any("from the same weights: artifact dddd" in line for line in lines)
    with pytest.raises(UsageError, match=r"server\.protocol: 'hugging-face' and 'open-inference'"):
        measured(made, compare=before, protocol="open-inference")
    with pytest.raises(UsageError, match=r"server\.timeout_ms: None and 9\.0"):
        measured(made, compare=before, timeout_ms=9.0)
    with pytest.raises(UsageError, match=r"server\.host: '127\.0\.0\.1' and None"):
        benchmark_artifact(echo_artifact, concurrency="1", longest_s=0.3, compare=before)


def test_a_plan_wants_a_report_of_an_artifact(made: MadeServer, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(
        {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    ))  # fmt: skip
    measured(made, report=tmp_path / "report.json")
    with pytest.raises(InputError, match="is of a server"):
        plan(str(tmp_path), measured=tmp_path / "report.json")


def test_stages_are_means_of_the_headers_that_have_them() -> None:
    other = STAGES.replace("device;dur=5", "device;dur=7.5")
    assert mean_stages([STAGES, other, "cache;desc=hit", "total;dur=x"])["server_device_ms"] == 6.25
    assert mean_stages(["total;dur=1"]) == mean_stages([]) == {}
