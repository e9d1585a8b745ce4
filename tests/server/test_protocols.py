"""What each route answers, and with what statuses, headers and errors."""

import gzip
import json
from typing import Any

import pytest

from server.hostile import peak_mib
from server.served import Served

QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}


def test_question_answering_gives_an_object_or_a_list(served: Served) -> None:
    alone = served.ask("/", {"inputs": QUESTION, "parameters": {}})
    assert alone.status == 200
    assert set(alone.json) == {"score", "start", "end", "answer"}
    assert alone.json["answer"] == QUESTION["context"][alone.json["start"] : alone.json["end"]]
    several = served.ask("/models/answers", {"inputs": QUESTION, "parameters": {"top_k": 3}})
    assert several.json[0] == alone.json and len(several.json) == 3
    batch = served.ask("/invocations", {"inputs": [QUESTION, QUESTION]})
    assert batch.json == [alone.json, alone.json]


def test_an_answer_says_which_artifact_made_it_and_where_its_time_went(served: Served) -> None:
    answer = served.ask("/", {"inputs": QUESTION}, {"X-Request-Id": "mine-1"})
    (model,) = [each for each in served.ask("/info").json["models"] if each["name"] == "answers"]
    assert answer.headers["x-artifact-digest"] == model["digest"]
    assert answer.headers["x-request-id"] == "mine-1"
    stages = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert set(stages) == {"tokenise", "queue", "batch_wait", "worker_wait", "device", "decode", "total"}
    assert float(stages["total"]) > 0
    assert "x-emulated" not in answer.headers


def test_without_the_option_nothing_is_kept(served: Served) -> None:
    answers = [served.ask("/", {"inputs": QUESTION}) for _ in range(2)]
    assert all("x-cache" not in answer.headers and "device" in answer.headers["server-timing"] for answer in answers)
    assert b"neuronbert_cache" not in served.ask("/metrics").body


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "\u00e9"])
def test_a_request_id_that_a_log_could_not_hold_is_replaced(served: Served, given: str) -> None:
    answer = served.ask("/v2/health/live", headers={"X-Request-Id": given.encode("utf-8").decode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32


def test_the_other_tasks_answer_as_hugging_face_does(served: Served) -> None:
    (labels,) = served.ask("/models/labels", {"inputs": "it was jim"}).json
    assert {each["label"] for each in labels} == {"calm", "glad", "cross"}
    assert [each["score"] for each in labels] == sorted((each["score"] for each in labels), reverse=True)
    assert len(served.ask("/models/labels", {"inputs": ["a", "b"], "parameters": {"top_k": 1}}).json) == 2
    tags = served.ask("/models/tags", {"inputs": "jim lived", "parameters": {"aggregation_strategy": "none"}}).json
    assert isinstance(tags, list)
    (embedding,) = served.ask("/models/embeds", {"inputs": "it was jim", "normalize": True}).json
    assert sum(number * number for number in embedding) == pytest.approx(1, abs=1e-5)
    similar = {"source_sentence": "it was jim", "sentences": ["it was jim", "london"]}
    cosines = served.ask("/models/embeds", {"inputs": similar}).json
    assert cosines[0] == pytest.approx(1, abs=1e-5) and len(cosines) == 2
    every = {"aggregation_strategy": "none", "ignore_labels": []}
    assert len(served.ask("/models/tags", {"inputs": "jim lived", "parameters": every}).json) >= max(2, len(tags))
    assert served.ask("/models/embeds", {"inputs": "it was jim", "truncation_direction": "Right"}).status == 200


def test_text_embeddings_inference(served: Served) -> None:
    (embedding,) = served.ask("/embed", {"inputs": "it was jim"}).json
    assert served.ask("/embed", {"inputs": ["it was jim"]}).json == [embedding]
    (raw,) = served.ask("/embed", {"inputs": "it was jim", "normalize": False, "dimensions": 4}).json
    assert len(raw) == 4
    assert {each["label"] for each in served.ask("/predict", {"inputs": "it was jim"}).json} == {
        "calm",
        "glad",
        "cross",
    }
    assert len(served.ask("/predict", {"inputs": ["it was jim", "a pair"]}).json) == 3  # labels of the pair
    assert len(served.ask("/predict", {"inputs": [["it"], ["was", "jim"]]}).json) == 2
    ranking = served.ask("/rerank", {"query": "who", "texts": ["jim", "london"], "return_text": True}).json
    assert sorted(each["text"] for each in ranking) == ["jim", "london"]
    assert ranking[0]["score"] >= ranking[1]["score"]
    cosines = served.ask("/similarity", {"inputs": {"source_sentence": "jim", "sentences": ["jim"]}}).json
    assert cosines == [pytest.approx(1, abs=1e-5)]


def test_openai(served: Served) -> None:
    answer = served.ask("/v1/embeddings", {"model": "embeds", "input": ["it was jim", "london"]}).json
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 4
    ids = served.ask("/v1/embeddings", {"model": "embeds", "input": [[5, 6, 7], [5]]}).json
    assert [len(each["embedding"]) for each in ids["data"]] == [32, 32]
    assert {each["id"] for each in served.ask("/v1/models").json["data"]} >= {"answers", "embeds"}
    assert served.ask("/v1/models/embeds").json["object"] == "model"
    unknown = served.ask("/v1/embeddings", {"model": "ada", "input": "x"})
    assert unknown.status == 404 and "embeds" in unknown.json["error"]["message"]


@pytest.mark.parametrize(
    ("given", "status", "place"),
    [
        ({"input": [[5]] * 257}, 413, None),  # --max-rows-per-request
        ({"input": [[5], [5] * 2999]}, 400, "$.input[1]"),
        ({"input": [5] * 2999}, 400, "$.input"),
        ({"input": [[5, 6]], "dimensions": 0}, 400, "$.dimensions"),
        ({"input": [[5, 6]], "dimensions": -1}, 400, "$.dimensions"),
        ({"input": "it was jim", "dimensions": 0}, 400, "$.dimensions"),
    ],
)
def test_what_openai_cannot_have(served: Served, given: Any, status: int, place: str) -> None:
    answer = served.ask("/v1/embeddings", {"model": "embeds", **given})
    assert answer.status == status and answer.json["error"]["param"] == place, answer


def test_rows_of_token_ids_are_refused_before_they_are_padded(served: Served) -> None:
    before = peak_mib(served)
    answer = served.ask("/v1/embeddings", {"model": "embeds", "input": [[5]] * 100_000 + [[5] * 2999]})
    assert answer.status == 413 and "--max-rows-per-request" in answer.json["error"]["message"]
    assert peak_mib(served) - before < 512  # padded they have 4.8 GB


def test_cohere(served: Served) -> None:
    asked = {"model": "ranks", "query": "who", "documents": ["jim", {"text": "london"}], "top_n": 1}
    for path in ("/v1/rerank", "/v2/rerank"):
        (result,) = served.ask(path, asked).json["results"]
        assert set(result) == {"index", "relevance_score"}
    with_texts = served.ask("/v2/rerank", {**asked, "return_documents": True}).json["results"]
    assert with_texts[0]["document"]["text"] in ("jim", "london")


LONG = "it was jim " * 400
INFER = "/v2/models/answers/infer"
TENSORS = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in QUESTION.items()]

# path, body → status, and the place in the body that the error names
BAD_BODIES = [
    ("/", b"", 400, "$"),
    ("/", b"{", 400, "$"),
    ("/", b"\xff\xfe", 400, "$"),
    ("/", [], 400, "$"),
    ("/", {}, 400, "$"),
    ("/", {"inputs": {"question": 7, "context": "x"}}, 400, "$.inputs.question"),
    ("/", {"inputs": {"question": "Who?"}}, 400, "$.inputs"),
    ("/", {"inputs": {"question": "", "context": "x"}}, 400, "$.inputs.question"),
    ("/", {"inputs": [{"question": "Who?", "context": ""}]}, 400, "$.inputs[0].context"),
    ("/", {"inputs": []}, 400, "$.inputs"),
    ("/", {"inputs": [QUESTION, {"question": "Who?", "context": ""}]}, 400, "$.inputs[1].context"),
    ("/", {"inputs": QUESTION, "parameters": {"top_k": 0}}, 400, "$.parameters.top_k"),
    ("/", {"inputs": QUESTION, "parameters": {"ranking": "best"}}, 400, "$.parameters.ranking"),
    (
        "/models/labels",
        {"inputs": "a", "parameters": {"function_to_apply": "f"}},
        400,
        "$.parameters.function_to_apply",
    ),
    ("/models/tags", {"inputs": "a", "parameters": {"stride": 10**6}}, 400, "$.parameters.stride"),
    ("/", {"inputs": QUESTION, "parameters": {"top_k": "two"}}, 400, "$.parameters.top_k"),
    ("/", {"inputs": QUESTION, "parameters": {"topk": 2}}, 400, "$.parameters"),
    ("/models/labels", {"inputs": 7}, 400, "$.inputs"),
    ("/models/embeds", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "$.inputs.sentences"),
    ("/models/embeds", {"inputs": "it was jim " * 400, "truncate": False}, 400, "$.inputs"),
    ("/models/embeds", {"inputs": "it was jim", "truncation_direction": "left"}, 400, "$.truncation_direction"),
    ("/embed", {"inputs": []}, 400, "$.inputs"),
    ("/embed", {"inputs": "a", "dimensions": 0}, 400, "$.dimensions"),
    ("/embed", {"inputs": "it was jim " * 400, "truncate": False}, 400, "$.inputs"),
    ("/embed", {"inputs": ["a", "it was jim " * 400], "truncate": False}, 400, "$.inputs[1]"),
    ("/embed", {"inputs": "a", "prompt_name": "none"}, 400, "$.prompt_name"),
    ("/predict", {"inputs": [["a", "b", "c"]]}, 400, "$.inputs"),
    ("/rerank", {"query": "who", "texts": []}, 400, "$.texts"),
    ("/rerank", {"query": "who", "texts": ["it was jim " * 400], "truncate": False}, 400, "$.texts"),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "$.inputs.sentences"),
    (
        "/similarity",
        {"inputs": {"source_sentence": "a", "sentences": ["b", LONG]}, "parameters": {"truncate": False}},
        400,
        "$.inputs.sentences[1]",
    ),
    (
        "/similarity",
        {"inputs": {"source_sentence": LONG, "sentences": ["b"]}, "parameters": {"truncate": False}},
        400,
        "$.inputs.source_sentence",
    ),
    (INFER, {"inputs": [TENSORS[0], {**TENSORS[1], "data": [""]}]}, 400, "$.inputs[1]"),
    (INFER, {"inputs": TENSORS, "parameters": {"timeout": 0}}, 400, "$.parameters.timeout"),
    (INFER, {"inputs": TENSORS, "parameters": {"top_k": 0}}, 400, "$.parameters.top_k"),
    (INFER, {"inputs": TENSORS, "outputs": [{"name": "nothing"}]}, 400, "$.outputs[0].name"),
]


@pytest.mark.parametrize(("path", "body", "status", "place"), BAD_BODIES)
def test_an_error_names_the_place_in_the_body(served: Served, path: str, body: Any, status: int, place: str) -> None:
    answer = served.ask(path, body)
    assert answer.status == status, answer
    assert answer.json["error"] and answer.json.get("path") == place, answer.json
    assert answer.json["error_type"] == "invalid_request"


@pytest.mark.parametrize(
    "inputs", [TENSORS, [{"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [5]}]]
)
def test_an_output_that_there_is_not_is_refused_before_it_is_paid_for(served: Served, inputs: Any) -> None:
    def rows() -> str:
        lines = served.ask("/metrics").body.decode().splitlines()
        return next(line for line in lines if line.startswith('neuronbert_rows_total{model="answers"}'))

    before = rows()
    answer = served.ask(INFER, {"inputs": inputs, "outputs": [{"name": "nothing"}]})
    assert answer.status == 400 and answer.json["path"] == "$.outputs[0].name"
    assert rows() == before


def test_errors_have_the_form_of_their_protocol(served: Served) -> None:
    openai = served.ask("/v1/embeddings", {"model": "embeds", "input": [1.5]})
    assert openai.status == 400
    assert set(openai.json["error"]) == {"message", "type", "param", "code"}
    assert openai.json["error"]["param"].startswith("$.input")
    cohere = served.ask("/v2/rerank", {"query": "who", "documents": "jim"})
    assert cohere.status == 400 and cohere.json["path"] == "$.documents"
    assert "message" in cohere.json


def test_what_a_model_does_not_offer_is_not_found(served: Served) -> None:
    answer = served.ask("/v1/embeddings", {"model": "answers", "input": "x"})
    assert answer.status == 404 and "question-answering" in answer.json["error"]["message"]
    assert served.ask("/models/nobody", {"inputs": "x"}).status == 404


def test_unknown_routes_and_methods(served: Served) -> None:
    assert served.ask("/nothing").status == 404
    assert served.ask("/nothing").json["error_type"] == "not_found"
    assert set(served.ask("/v1/nothing").json) == {"error", "error_type"}  # as docs/serving.md says
    refused = served.ask("/embed", method="DELETE")
    assert refused.status == 405 and refused.headers["allow"] == "POST"
    assert served.ask("/", method="PUT", body={}).headers["allow"] == "GET, POST"
    assert served.ask("/v1/embeddings").json["error"]["code"] == "method_not_allowed"


def test_bodies_may_be_packed(served: Served) -> None:
    packed = gzip.compress(json.dumps({"inputs": QUESTION}).encode())
    assert served.ask("/", packed, {"Content-Encoding": "gzip"}).status == 200
    assert served.ask("/", b"no gzip", {"Content-Encoding": "gzip"}).status == 400
    assert served.ask("/", packed[:-9], {"Content-Encoding": "gzip"}).status == 400
    assert served.ask("/", packed, {"Content-Encoding": "br"}).status == 415
    bomb = gzip.compress(b" " * (200 << 20))
    assert served.ask("/", bomb, {"Content-Encoding": "gzip"}).status == 413


def test_what_was_cut_says_so(served: Served) -> None:
    long = "it was jim " * 400
    assert served.ask("/embed", {"inputs": [long, "short"]}).headers["x-truncated"] == "0"
    assert "x-truncated" not in served.ask("/embed", {"inputs": "short"}).headers


def test_health_and_what_operators_ask(served: Served) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/health", "/ping", "/v2/models/answers/ready"):
        assert served.ask(path).status == 200, path
    info = served.ask("/info").json
    assert [model["name"] for model in info["models"]] == ["answers", "labels", "ranks", "tags", "embeds"]
    assert info["models"][0]["variants"][0]["precision"] == "fp32"
    assert "/" not in str(info["models"][1]["checkpoint"]["source"])
    description = served.ask("/openapi.json").json
    assert description["openapi"] == "3.1.0"
    assert {"/", "/embed", "/v1/embeddings", "/v2/models/{name}/infer"} <= set(description["paths"])


def test_metrics_count_what_happened(served: Served) -> None:
    def value(line: str) -> float:
        text = served.ask("/metrics").body.decode()
        return float(next((each.split()[-1] for each in text.splitlines() if each.startswith(line)), 0))

    counter = 'neuronbert_http_requests_total{model="labels",route="/models/{name}",status="200"}'
    before = value(counter)
    served.ask("/models/labels", {"inputs": "jim"})
    assert value(counter) == before + 1
    assert value('neuronbert_stage_seconds_count{model="labels",stage="device"}') >= 1
    assert value('neuronbert_queue_max_rows{model="labels"}') == 1024
    assert value('neuronbert_worker_up{cores="1 CPU thread",model="labels",worker="0"}') == 1
    assert value('neuronbert_model_ready{model="labels"}') == 1


def test_the_log_has_a_line_for_each_request(served: Served) -> None:
    answer = served.ask("/models/labels", {"inputs": "jim"})
    line = served.logged(answer.headers["x-request-id"])
    assert "POST /models/labels" in line and "status=200" in line and "model=labels" in line
