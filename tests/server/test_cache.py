"""The cache of answers: keys, bounds, ages; who waits for whom; and a real server with it."""

import asyncio
import json
import os
import shutil
import socket
import struct
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import msgspec
import pytest
from echo_files import with_echo
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.echo import FAULTS_VARIABLE
from neuronbert.errors import (
    DeadlineExceeded,
    InputError,
    NeuronBertError,
    Overloaded,
    PoisonRequest,
    RunnerClosed,
    UsageError,
)
from neuronbert.server.cache import KEY_BYTES, LEAST_LEFT_S, Answer, Flights, LocalCache, key_of
from neuronbert.server.failures import ClientGone, HttpError, is_of_the_request
from neuronbert.server.protocols.text_embeddings import EmbedBody, RerankBody, SimilarityBody
from neuronbert.server.settings import ServerSettings
from neuronbert.tasks import TASKS, load_http
from server.served import Answer as Got
from server.served import Served, serving

QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}
BATCH_S = 0.4
KEY = b"k" * KEY_BYTES

# ---------------------------------------------------------------------------- keys

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def shuffled(value: Any, draw: Callable[..., Any]) -> Any:
    """The same JSON with its members in another order."""
    if not isinstance(value, dict):
        return value
    names = draw(st.permutations(sorted(value)))
    return {name: shuffled(value[name], draw) for name in names}


@given(st.data(), st.dictionaries(TEXTS, VALUES, max_size=4))
def test_the_order_of_members_does_not_matter(data: Any, value: Dict[str, Any]) -> None:
    assert key_of(("who",), value) == key_of(("who",), shuffled(value, data.draw))


def exact(value: Any) -> Any:
    """What tells 1, 1.0 and true apart, which Python takes for equal."""
    if isinstance(value, dict):
        return {name: exact(each) for name, each in value.items()}
    if isinstance(value, list):
        return [exact(each) for each in value]
    return type(value).__name__, repr(value)


@given(VALUES, VALUES)
def test_what_differs_has_another_key(one: Any, other: Any) -> None:
    assume(exact(one) != exact(other))
    assert key_of(("who",), one) != key_of(("who",), other)


@given(st.lists(TEXTS, min_size=1, max_size=4, unique=True), st.lists(TEXTS, min_size=1, max_size=4, unique=True))
def test_neither_identity_nor_question_runs_into_the_other(one: List[str], other: List[str]) -> None:
    assume(one != other)
    assert key_of(one, "asked") != key_of(other, "asked")
    assert key_of(one, other) != key_of(other, one)


BODIES = {
    name: msgspec.json.Decoder(kind)
    for name, kind in {
        "embed": EmbedBody,
        "rerank": RerankBody,
        "similarity": SimilarityBody,
        **{task: load_http(task).BODY for task in TASKS},
    }.items()
}


@pytest.mark.parametrize(
    ("kind", "body", "same", "others"),
    [
        (
            "question-answering",
            {"inputs": QUESTION},
            [{"inputs": QUESTION, "parameters": {}}, {"parameters": {"top_k": None}, "inputs": QUESTION}],
            [{"inputs": [QUESTION]}, {"inputs": QUESTION, "parameters": {"top_k": 2}}],
        ),
        (
            "text-classification",
            {"inputs": "a"},
            [{"inputs": "a", "parameters": None}],
            [{"inputs": ["a"]}, {"inputs": {"text": "a"}}, {"inputs": "a", "parameters": {"top_k": 1}}],
        ),
        (
            "feature-extraction",
            {"inputs": "a"},
            [{"inputs": "a", "normalize": None, "parameters": {}}],
            [{"inputs": "a", "normalize": False}, {"inputs": "a", "truncate": False}],
        ),
        (
            "embed",
            {"inputs": "a"},
            [{"inputs": "a", "normalize": True, "something": "unknown"}],
            [{"inputs": "a", "normalize": False}, {"inputs": "a", "truncate": False}, {"inputs": "a", "dimensions": 4}],
        ),
        (
            "rerank",
            {"query": "q", "texts": ["a", "b"]},
            [{"texts": ["a", "b"], "query": "q", "raw_scores": False}],
            [{"query": "q", "texts": ["b", "a"]}, {"query": "q", "texts": ["a", "b"], "return_text": True}],
        ),
        (
            "similarity",
            {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
            [{"inputs": {"sentences": ["b"], "source_sentence": "a"}, "parameters": {"prompt_name": None}}],
            [{"inputs": {"source_sentence": "b", "sentences": ["a"]}}],
        ),
    ],
)
def test_the_bodies_of_our_routes(kind: str, body: Any, same: List[Any], others: List[Any]) -> None:
    def key(given: Any) -> Optional[bytes]:
        return key_of((kind,), BODIES[kind].decode(json.dumps(given)))

    assert {key(each) for each in [body, *same]} == {key(body)}
    assert len({key(each) for each in [body, *others]}) == 1 + len(others)
    assert len(key(body) or b"") == KEY_BYTES


def test_what_no_key_can_hold_has_none() -> None:
    assert key_of((), [2**64]) is None
    assert key_of((), "\ud800") is None
    deep: Dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert key_of((), deep) is None


# ---------------------------------------------------------------------------- the local cache


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_has_an_age_and_an_end() -> None:
    clock = Clock()
    cache = LocalCache(100_000, ttl_s=60, clock=clock)
    answer = Answer(b"[1]", b"application/json", ((b"x-truncated", b"0"),))
    cache.put(KEY, answer)
    clock.now += 59
    found = cache.get(KEY)
    assert found is not None and found == (answer, 59.0)
    clock.now += 1
    assert cache.get(KEY) is None
    assert cache.size() == (0, 0)
    cache.put(KEY, answer, age_s=50)
    found = cache.get(KEY)
    assert found is not None and found.age_s == 50
    clock.now += 10
    assert cache.get(KEY) is None


@pytest.mark.parametrize("age_s", [60 - LEAST_LEFT_S / 2, 60, 61])
def test_an_answer_that_is_too_old_already_is_not_kept(age_s: float) -> None:
    cache = LocalCache(100_000, ttl_s=60)
    cache.put(KEY, Answer(b"1", b""), age_s)
    assert cache.size() == (0, 0)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 60_000),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 9000), st.integers(0, 20), st.integers(0, 30))),
)
def test_it_never_holds_more_than_it_may(most_bytes: int, puts: Any) -> None:
    clock = Clock()
    cache = LocalCache(most_bytes, ttl_s=60, clock=clock)
    last: Dict[bytes, Any] = {}
    for number, body_bytes, later_s, age_s in puts:
        clock.now += later_s
        key, answer = bytes([number]) * KEY_BYTES, Answer(bytes(body_bytes), b"x")
        cache.put(key, answer, age_s)
        if answer.size_bytes <= most_bytes // 8:
            last[key] = answer, clock.now - age_s
            assert cache.get(key) == (answer, age_s)
        count, size_bytes = cache.size()
        assert size_bytes <= most_bytes and count <= len(last)
        for kept, (kept_answer, made_at) in last.items():
            found = cache.get(kept)
            assert found is None or (found == (kept_answer, clock.now - made_at) and found.age_s < 60)


def test_what_was_asked_for_last_stays() -> None:
    answer = Answer(bytes(1000), b"")
    cache = LocalCache(10 * answer.size_bytes, ttl_s=60)
    assert answer.size_bytes <= cache.most_bytes_each * 8
    small = Answer(b"", b"")
    room = 10 * answer.size_bytes // small.size_bytes
    keys = [number.to_bytes(KEY_BYTES, "big") for number in range(room + 5)]
    for key in keys:
        cache.put(key, small)
        assert cache.get(keys[0]) is not None
    assert cache.get(keys[1]) is None and cache.get(keys[-1]) is not None


@pytest.mark.parametrize("body_bytes", [4, 300, 4000])
def test_its_bytes_are_those_that_it_takes(body_bytes: int) -> None:
    cache = LocalCache(4 << 20, ttl_s=60)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(8000):
            header = (b"x-truncated%d" % number, b"0,%d" % number)
            cache.put(os.urandom(KEY_BYTES), Answer(os.urandom(body_bytes), b"type %d" % number, (header,)))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    count, size_bytes = cache.size()
    assert 700 < count and size_bytes <= 4 << 20
    assert taken <= 4 << 20


# ---------------------------------------------------------------------------- one makes it, others wait


class Making:
    """Something that is made when it is told to be, and counts how often it began."""

    def __init__(self) -> None:
        self.began = 0
        self.outcomes: asyncio.Queue[Any] = asyncio.Queue()

    async def __call__(self) -> Any:
        self.began += 1
        outcome = await self.outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def fly(flights: "Flights[Any]", making: Making) -> Any:
    while True:
        joined = flights.join(KEY)
        if joined is None:
            return await flights.lead(KEY, making)
        made = await joined
        if made is not None:
            return made


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_equal_requests_are_made_once() -> None:
    async def run() -> None:
        flights, making = Flights[Any](), Making()
        tasks = [asyncio.ensure_future(fly(flights, making)) for _ in range(5)]
        await settled()
        making.outcomes.put_nowait("made")
        assert await asyncio.gather(*tasks) == ["made"] * 5
        assert making.began == 1
        making.outcomes.put_nowait("again")
        assert await fly(flights, making) == "again"  # nothing is left of the first

    asyncio.run(run())


@pytest.mark.parametrize("error", [InputError("bad"), PoisonRequest("bad"), HttpError(413, "bad", path="$")])
def test_a_failure_of_what_was_asked_is_that_of_all(error: NeuronBertError) -> None:
    async def run() -> None:
        flights, making = Flights[Any](is_of_the_request), Making()
        tasks = [asyncio.ensure_future(fly(flights, making)) for _ in range(4)]
        await settled()
        making.outcomes.put_nowait(error)
        raised = await asyncio.gather(*tasks, return_exceptions=True)
        assert making.began == 1
        assert {(type(each), vars(each)["message"], vars(each).get("path")) for each in raised} == {
            (type(error), "bad", vars(error).get("path"))
        }
        assert len(set(map(id, raised))) == 4

    asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [
        ValueError("its own"),
        ClientGone(),
        DeadlineExceeded("late"),
        Overloaded("full"),
        RunnerClosed("closed"),
        HttpError(429, "too many rows of yours"),
        HttpError(503, "draining"),
    ],
)
def test_the_failure_of_one_is_its_own(error: Exception) -> None:
    async def run() -> None:
        flights, making = Flights[Any](is_of_the_request), Making()
        tasks = [asyncio.ensure_future(fly(flights, making)) for _ in range(4)]
        await settled()
        making.outcomes.put_nowait(error)
        await settled()
        assert making.began == 2  # one of the others, and only one
        making.outcomes.put_nowait("made")
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert first is error and others == ["made"] * 3

    asyncio.run(run())


@pytest.mark.parametrize("cancelled", [{0}, {1}, {0, 1}, {0, 1, 2}])
def test_whoever_gives_up_does_not_stop_the_others(cancelled: Any) -> None:
    async def run() -> None:
        flights, making = Flights[Any](), Making()
        tasks = [asyncio.ensure_future(fly(flights, making)) for _ in range(4)]
        await settled()
        for number in cancelled:
            tasks[number].cancel()
        await settled()
        making.outcomes.put_nowait("made")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            assert isinstance(outcome, asyncio.CancelledError) if number in cancelled else outcome == "made"
        assert making.began == (2 if 0 in cancelled else 1)

    asyncio.run(run())


# ---------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def slow(artifacts: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact on a device that takes BATCH_S for answers to questions."""
    folder = tmp_path_factory.mktemp("slow") / "artifact"
    return with_echo(Path(shutil.copytree(artifacts["answers"], folder)), batch_s=BATCH_S)


@pytest.fixture(scope="module")
def caching(artifacts: Dict[str, Path], slow: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with two keys."""
    folder = tmp_path_factory.mktemp("caching")
    arguments = [f"answers={slow.folder}", *(f"{name}={artifacts[name]}" for name in ("embeds", "labels", "ranks"))]
    options = ("--threads", "1", "--cache-bytes", "1000000", "--max-wait-ms", "0", "--api-key", "one", "--allow-reload")
    environment = {FAULTS_VARIABLE: "1", "NEURONBERT_API_KEY": ""}
    with serving(folder, *arguments, *options, "--api-key", "two", environment=environment) as server:
        yield server


def ask(served: Served, path: str, body: Any, key: str = "one", **headers: str) -> Got:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.ask(path, body, {"Authorization": f"Bearer {key}", **named})


def counted(served: Served, name: str) -> float:
    """The sum of a metric's samples that begin with ``name``."""
    lines = ask(served, "/metrics", None).body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def question(text: str) -> Dict[str, Any]:
    return {"inputs": {**QUESTION, "question": text}}


def test_the_same_question_is_answered_from_the_cache(caching: Served) -> None:
    rows = counted(caching, 'neuronbert_rows_total{model="answers"}')
    first = ask(caching, "/", question("a"))
    again = ask(caching, "/models/answers", {"parameters": {}, **question("a")}, X_Request_Id="mine")
    assert first.headers["x-cache"] == "MISS" and "age" not in first.headers
    assert again.headers["x-cache"] == "HIT" and again.headers["age"] == "0"
    assert again.body == first.body and again.status == 200
    assert again.headers["server-timing"].startswith("total;dur=")
    assert "device" in first.headers["server-timing"]
    assert again.headers["x-artifact-digest"] == first.headers["x-artifact-digest"]
    assert again.headers["x-request-id"] == "mine"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert counted(caching, 'neuronbert_rows_total{model="answers"}') == rows + 1
    assert counted(caching, 'neuronbert_cache_requests_total{model="answers",result="hit"}') >= 1
    assert counted(caching, "neuronbert_cache_entries") >= 1
    assert 0 < counted(caching, "neuronbert_cache_bytes") <= 1_000_000


def test_a_client_may_do_without(caching: Served) -> None:
    def results(*wishes: str) -> List[str]:
        return [ask(caching, "/", question("b"), Cache_Control=wish).headers["x-cache"] for wish in wishes]

    assert results("no-store", "max-age=0, No-Store") == ["BYPASS", "BYPASS"]
    assert results("no-cache") == ["BYPASS"]
    assert results("max-age=60", "no-cache", "no-store") == ["HIT", "BYPASS", "BYPASS"]
    assert "server-timing" in ask(caching, "/", question("b"), Cache_Control="no-store").headers
    assert counted(caching, 'neuronbert_cache_requests_total{model="answers",result="bypass"}') >= 6


def test_tenants_do_not_share(caching: Served) -> None:
    assert ask(caching, "/", question("c")).headers["x-cache"] == "MISS"
    assert ask(caching, "/", question("c"), key="two").headers["x-cache"] == "MISS"
    assert ask(caching, "/", question("c"), key="two").headers["x-cache"] == "HIT"
    refused = ask(caching, "/", question("c"), key="three")
    assert refused.status == 401 and "x-cache" not in refused.headers


def test_errors_are_not_kept(caching: Served) -> None:
    for _ in range(2):
        refused = ask(caching, "/", {"inputs": {"question": "", "context": "x"}})
        assert refused.status == 400 and refused.headers.get("x-cache") != "HIT"
    assert ask(caching, "/v1/embeddings", {"model": "embeds", "input": [2**70]}).status == 400


TEXT = {"shape": [1], "datatype": "BYTES", "data": ["it was jim"]}
IDS = {"name": "input_ids", "shape": [1, 4], "datatype": "INT64", "data": [2, 5, 6, 3]}
EVERY_FORM = [
    ("/models/labels", {"inputs": "it was jim"}),
    ("/embed", {"inputs": "it was jim " * 400}),
    ("/predict", {"inputs": [["a"], ["a", "b"]]}),
    ("/rerank", {"query": "who", "texts": ["jim", "london"]}),
    ("/similarity", {"inputs": {"source_sentence": "jim", "sentences": ["london"]}}),
    ("/v1/embeddings", {"model": "embeds", "input": ["it was jim"]}),
    ("/v2/models/labels/infer", {"inputs": [{"name": "text", **TEXT}], "parameters": {"top_k": 1}}),
    ("/v2/models/embeds/infer", {"inputs": [IDS], "parameters": {"binary_data_output": True}}),
]


@pytest.mark.parametrize(("path", "body"), EVERY_FORM)
def test_every_protocol(caching: Served, path: str, body: Any) -> None:
    first, again = ask(caching, path, body), ask(caching, path, body)
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
    assert again.body == first.body
    assert again.headers.get("x-truncated") == first.headers.get("x-truncated")
    assert ("x-truncated" in first.headers) == (path == "/embed")


def test_what_does_not_change_the_answer_is_not_looked_at(caching: Served) -> None:
    body = {"model": "embeds", "input": "london"}
    assert ask(caching, "/v1/embeddings", body).headers["x-cache"] == "MISS"
    same = {**body, "user": "x", "encoding_format": "float"}
    again = ask(caching, "/v1/embeddings", same, X_Request_Timeout_Ms="90000")
    assert again.headers["x-cache"] == "HIT"
    assert ask(caching, "/v1/embeddings", {**body, "encoding_format": "base64"}).headers["x-cache"] == "MISS"


def test_an_id_is_of_one_answer(caching: Served) -> None:
    body = {"model": "ranks", "query": "who", "documents": ["jim", {"text": "london"}]}
    first = ask(caching, "/v1/rerank", body, X_Request_Id="first")
    again = ask(caching, "/v2/rerank", {**body, "documents": ["jim", "london"]}, X_Request_Id="second")
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
    assert again.json["results"] == first.json["results"]
    assert (first.json["id"], again.json["id"]) == ("first", "second")
    assert again.json["meta"]["api_version"] == {"version": "2"}


@pytest.mark.parametrize("binary", [False, True])
def test_tensors_however_they_are_sent(caching: Served, binary: bool) -> None:
    path, wanted = "/v2/models/embeds/infer", {"parameters": {"binary_data_output": binary}}
    ids = {**IDS, "data": [2, 7 + binary, 6, 3]}
    first = ask(caching, path, {"inputs": [ids], "id": "first", **wanted})
    described = {**{name: IDS[name] for name in ("name", "shape", "datatype")}, "parameters": {"binary_data_size": 32}}
    head = {"inputs": [described], "parameters": {**wanted["parameters"], "timeout": 10**8}}
    packed = json.dumps({**head, "id": "second"}).encode()
    body = packed + struct.pack("<4q", *ids["data"])
    again = ask(caching, path, body, Inference_Header_Content_Length=str(len(packed)))
    other = ask(caching, path, {"inputs": [{**IDS, "data": [2, 9 + binary, 6, 3]}], "id": "", **wanted})
    assert [each.headers["x-cache"] for each in (first, again, other)] == ["MISS", "HIT", "MISS"]

    def parts(answer: Got) -> Any:
        end = int(answer.headers.get("inference-header-content-length", len(answer.body)))
        document = json.loads(answer.body[:end])
        return document.pop("id", None), document, answer.body[end:]

    assert ("inference-header-content-length" in again.headers) == binary == bool(parts(again)[2])
    assert (parts(first)[0], parts(again)[0], parts(other)[0]) == ("first", "second", None)
    assert parts(again)[1:] == parts(first)[1:] != parts(other)[1:]


def test_equal_questions_at_once_are_computed_once(caching: Served) -> None:
    rows = counted(caching, 'neuronbert_rows_total{model="answers"}')
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(caching, "/", question("d")), range(6)))
    assert sorted(answer.headers["x-cache"] for answer in answers) == [*["HIT"] * 5, "MISS"]
    assert len({answer.body for answer in answers}) == 1
    assert counted(caching, 'neuronbert_rows_total{model="answers"}') == rows + 1
    assert counted(caching, 'neuronbert_cache_requests_total{model="answers",result="joined"}') >= 5


def test_equal_requests_that_cannot_be_answered_fail_once(caching: Served) -> None:
    body = {"inputs": {**QUESTION, "context": "it was jim " * 20_000}, "parameters": {"max_seq_len": 20}}
    misses = counted(caching, 'neuronbert_cache_requests_total{model="answers",result="miss"}')
    with ThreadPoolExecutor(6) as pool:
        refused = list(pool.map(lambda _: ask(caching, "/", body), range(6)))
    assert {(answer.status, answer.json["error_type"]) for answer in refused} == {(413, "too_large")}
    made = counted(caching, 'neuronbert_cache_requests_total{model="answers",result="miss"}') - misses
    assert 1 <= made < 6


def test_a_deadline_is_the_own_of_who_has_it(caching: Served) -> None:
    with ThreadPoolExecutor(3) as pool:
        leading = pool.submit(ask, caching, "/", question("e"))
        time.sleep(BATCH_S / 4)
        patient = pool.submit(ask, caching, "/", question("e"))
        hurried = ask(caching, "/", question("e"), X_Request_Timeout_Ms="20")
        assert hurried.status == 504
        assert leading.result().status == patient.result().status == 200


def test_one_whose_own_time_ends_leaves_the_answer_to_the_others(caching: Served) -> None:
    with ThreadPoolExecutor(3) as pool:
        hurried = pool.submit(ask, caching, "/", question("f"), X_Request_Timeout_Ms=str(int(BATCH_S * 750)))
        time.sleep(BATCH_S / 4)
        waiting = [pool.submit(ask, caching, "/", question("f")) for _ in range(2)]
        assert hurried.result().status == 504
        assert [each.result().status for each in waiting] == [200, 200]


def test_one_who_goes_away_leaves_the_answer_to_the_others(caching: Served) -> None:
    body = json.dumps(question("g")).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer one\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\n\r\n"
    )
    with ThreadPoolExecutor(2) as pool:
        with socket.create_connection(("127.0.0.1", caching.port)) as leading:
            leading.sendall(head.encode() + body)
            time.sleep(BATCH_S / 4)
            waiting = [pool.submit(ask, caching, "/", question("g")) for _ in range(2)]
            time.sleep(BATCH_S / 4)
        answers = [each.result() for each in waiting]
    assert [answer.status for answer in answers] == [200, 200]
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT", "MISS"]


def test_another_artifact_has_other_answers(caching: Served, slow: Artifact) -> None:
    first = ask(caching, "/", question("h"))
    assert ask(caching, "/", question("h")).headers["x-cache"] == "HIT"
    newer = with_echo(slow.folder, multiplier=104_729)
    assert ask(caching, "/v2/repository/models/answers/load", {}).status == 200
    reloaded, again = ask(caching, "/", question("h")), ask(caching, "/", question("h"))
    assert (reloaded.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
    assert first.headers["x-artifact-digest"] == slow.manifest["digest"]
    assert reloaded.headers["x-artifact-digest"] == again.headers["x-artifact-digest"] == newer.manifest["digest"]
    assert again.body == reloaded.body != first.body


# ---------------------------------------------------------------------------- options

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cache_bytes": -1}, "cache_bytes must be a whole number"),
        ({"cache_ttl_s": 0}, "cache_ttl_s must be above 0"),
        ({"cache_url": "redis://x"}, "that is off"),
        ({"cache_url": "redis://x", "cache_bytes": 0}, "that is off"),
        ({"cache_url": "redis://x", "cache_bytes": 9}, "needs a secret"),
        ({"cache_url": "redis://x", "cache_bytes": 9, "cache_secret": "short"}, "has 5 characters"),
        ({"cache_url": "http://:pass@x", "cache_bytes": 9, "cache_secret": SECRET}, "must begin with one of redis://"),
    ],
)
def test_options_that_cannot_be(given: Dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        ServerSettings(**given)
    assert "pass@" not in str(raised.value)


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    assert ServerSettings().cache_bytes is None
    assert ServerSettings(cache_bytes=0).cache_bytes is None
    assert ServerSettings(cache_bytes=9, cache_url="unix:///run/redis", cache_secret=SECRET).cache_ttl_s == 3600
