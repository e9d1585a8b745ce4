"""The clients that people have, unchanged, against a real server. Each is skipped where it is not installed."""

import gc
import json
import subprocess
import warnings
from typing import Any, Dict, Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest

from server.served import Served

# Some of them leave their connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Here, where that is expected, and not in the next file of tests."""
    yield
    gc.collect()


QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}


# ---------------------------------------------------------------------------- huggingface_hub


@pytest.fixture(scope="module")
def inference_client() -> Any:
    hub = pytest.importorskip("huggingface_hub")
    if not hasattr(hub.InferenceClient, "sentence_similarity"):
        pytest.skip("this huggingface_hub has no InferenceClient for these tasks")
    return hub.InferenceClient


def test_inference_client_answers_questions(served: Served, inference_client: Any) -> None:
    client = inference_client(model=f"{served.url}/models/answers", token="none")
    alone = client.question_answering(**QUESTION)
    assert alone.answer == QUESTION["context"][alone.start : alone.end]
    several = client.question_answering(**QUESTION, top_k=3)
    assert [each.answer for each in several][0] == alone.answer and len(several) == 3
    first = inference_client(model=f"{served.url}/", token="none").question_answering(**QUESTION)
    assert first == alone


def test_inference_client_labels_and_tags(served: Served, inference_client: Any) -> None:
    client = inference_client(model=f"{served.url}/models/labels", token="none")
    labels = client.text_classification("it was jim")
    assert {each.label for each in labels} == {"calm", "glad", "cross"}
    assert len(client.text_classification("it was jim", top_k=1, function_to_apply="sigmoid")) == 1
    tagger = inference_client(model=f"{served.url}/models/tags", token="none")
    for entity in tagger.token_classification("it was jim", aggregation_strategy="simple"):
        assert entity.entity_group == "PER" and entity.word


def test_inference_client_embeds_and_compares(served: Served, inference_client: Any) -> None:
    client = inference_client(model=f"{served.url}/models/embeds", token="none")
    embedding = client.feature_extraction("it was jim", normalize=True)
    assert embedding.shape == (1, 32) and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    similarities = client.sentence_similarity("it was jim", other_sentences=["it was jim", "london"])
    assert similarities[0] == pytest.approx(1, abs=1e-5) and len(similarities) == 2


def test_inference_client_raises_with_the_message_of_the_server(served: Served, inference_client: Any) -> None:
    client = inference_client(model=f"{served.url}/models/answers", token="none")
    with pytest.raises(Exception, match="`question` cannot be empty"):
        client.question_answering(question="", context="x")


# ---------------------------------------------------------------------------- openai, cohere


def test_openai_embeds(served: Served) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="embeds", input=["it was jim", "london"])
        numbers = client.embeddings.create(model="embeds", input=["it was jim"], encoding_format="float")
        short = client.embeddings.create(model="embeds", input="it was jim", dimensions=8)
        assert np.allclose(answer.data[0].embedding, numbers.data[0].embedding, atol=1e-7)
        assert len(short.data[0].embedding) == 8
        assert answer.usage.total_tokens > 0
        assert "embeds" in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError, match="ada"):
            client.embeddings.create(model="ada", input="x")
        with pytest.raises(openai.BadRequestError, match="input"):
            client.embeddings.create(model="embeds", input=[])


def test_cohere_reranks(served: Served) -> None:
    cohere = pytest.importorskip("cohere")
    for client in (
        cohere.Client(api_key="none", base_url=served.url),
        cohere.ClientV2(api_key="none", base_url=served.url),
    ):
        answer = client.rerank(model="ranks", query="who", documents=["jim", "london", "it was"], top_n=2)
        assert len(answer.results) == 2
        assert answer.results[0].relevance_score >= answer.results[1].relevance_score
        assert {each.index for each in answer.results} <= {0, 1, 2}


# ---------------------------------------------------------------------------- boto3


def test_boto3_invokes_an_endpoint(served: Served) -> None:
    """SageMaker maps an endpoint's invocations to the container's /invocations; so does a hook of the client's here."""
    boto3 = pytest.importorskip("boto3")
    runtime = boto3.client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=served.url,
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )

    def to_container(request: Any, **_: Any) -> None:
        parts = urlsplit(request.url)
        request.url = parts._replace(path="/invocations").geturl()

    runtime.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", to_container)
    answer = runtime.invoke_endpoint(
        EndpointName="qa", ContentType="application/json", Body=json.dumps({"inputs": QUESTION})
    )
    assert set(json.loads(answer["Body"].read())) == {"score", "start", "end", "answer"}
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-artifact-digest"]


# ---------------------------------------------------------------------------- tritonclient


@pytest.fixture(scope="module")
def triton() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's, about itself
        return pytest.importorskip("tritonclient.http")


def _text_tensors(triton: Any, texts: Dict[str, Any], binary: bool) -> Any:
    tensors = []
    for name, values in texts.items():
        array = np.array([value.encode() for value in values], dtype=object)
        tensor = triton.InferInput(name, list(array.shape), "BYTES")
        tensor.set_data_from_numpy(array, binary_data=binary)
        tensors.append(tensor)
    return tensors


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_infers_from_texts(served: Served, triton: Any, binary: bool, compression: Any) -> None:
    expected = served.ask("/models/answers", {"inputs": QUESTION}).json
    with triton.InferenceServerClient(served.url.partition("//")[2]) as client:
        texts = {"question": [QUESTION["question"]] * 2, "context": [QUESTION["context"]] * 2}
        result = client.infer(
            "answers",
            _text_tensors(triton, texts, binary),
            outputs=[
                triton.InferRequestedOutput("answer", binary_data=binary),
                triton.InferRequestedOutput("score", binary_data=binary),
            ],
            request_compression_algorithm=compression,
            timeout=60_000_000,
            parameters={"top_k": 1},
        )
        answers = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("answer")]
        assert answers == [expected["answer"]] * 2
        assert result.as_numpy("score").dtype == np.float64
        assert result.as_numpy("score") == pytest.approx([expected["score"]] * 2)


def test_triton_infers_from_token_ids(served: Served, triton: Any) -> None:
    ids = np.array([[2, 5, 6, 3]], dtype=np.int64)
    with triton.InferenceServerClient(served.url.partition("//")[2]) as client:
        tensor = triton.InferInput("input_ids", list(ids.shape), "INT64")
        tensor.set_data_from_numpy(ids)
        result = client.infer("answers", [tensor])
        assert result.as_numpy("start_logits").shape == (1, 4)
        assert result.as_numpy("end_logits").dtype == np.float32


def test_triton_asks_what_there_is(served: Served, triton: Any) -> None:
    with triton.InferenceServerClient(served.url.partition("//")[2]) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("answers")
        assert client.get_server_metadata()["name"] == "neuronbert"
        metadata = client.get_model_metadata("answers")
        assert [each["name"] for each in metadata["inputs"]][:2] == ["question", "context"]
        assert client.get_model_config("answers")["max_batch_size"] == 256
        assert "answers" in [each["name"] for each in client.get_model_repository_index()]
        statistics = client.get_inference_statistics("answers")["model_stats"][0]
        assert statistics["inference_stats"]["success"]["count"] >= 0


def test_triton_is_told_what_is_wrong(served: Served, triton: Any) -> None:
    with triton.InferenceServerClient(served.url.partition("//")[2]) as client:
        with pytest.raises(triton.InferenceServerException, match="context"):
            client.infer("answers", _text_tensors(triton, {"question": ["Who?"]}, True))
        with pytest.raises(triton.InferenceServerException, match="nothing"):
            client.infer("answers", _text_tensors(triton, {"nothing": ["Who?"]}, True))


# ---------------------------------------------------------------------------- curl


def test_curl(served: Served) -> None:
    command = ["curl", "-sS", "--noproxy", "*", f"{served.url}/", "-d", json.dumps({"inputs": QUESTION})]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    assert json.loads(done.stdout)["answer"], done
