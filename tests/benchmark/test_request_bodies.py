"""Inputs in the words of each protocol."""

import json
from typing import Any, Dict, FrozenSet, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.benchmark.request_bodies import (
    PROTOCOLS,
    RANKED_TEXTS,
    Addressee,
    rankings_of,
    record_of,
    requests_of,
)
from neuronbert.errors import UsageError
from neuronbert.tasks import TASKS, load_options, load_task

TEXT = st.text(min_size=1, max_size=20).filter(str.strip)
LINES: Dict[str, Any] = {
    "question-answering": st.fixed_dictionaries({"question": TEXT, "context": TEXT}),
    "text-classification": st.one_of(
        st.fixed_dictionaries({"text": TEXT}),
        st.fixed_dictionaries({"text": TEXT, "text_pair": TEXT}),
        st.fixed_dictionaries({"query": TEXT, "texts": st.lists(TEXT, min_size=1, max_size=4)}),
    ),
    "token-classification": st.one_of(
        st.fixed_dictionaries({"text": TEXT}),
        st.fixed_dictionaries({"tokens": st.lists(TEXT, min_size=1, max_size=4)}),
    ),
    "feature-extraction": st.fixed_dictionaries({"text": TEXT}),
}


@pytest.mark.parametrize("name", sorted(TASKS))
@given(data=st.data())
def test_a_line_of_an_input_is_read_as_that_input(name: str, data: st.DataObject) -> None:
    task = load_task(name)
    asked = task.LINES.input(data.draw(LINES[name]))
    line = record_of(task.LINES, task.call_arguments(asked))
    assert task.LINES.fault(line) is None and task.LINES.input(line) == asked


def asked(task: str, protocol: str, line: Dict[str, Any], offers: Optional[FrozenSet[str]] = None) -> Any:
    """The path and the body of one line."""
    loaded = load_task(task)
    kept = frozenset(load_options(task).OFFERS) if offers is None else offers
    (request,) = requests_of(protocol, loaded, [loaded.LINES.input(line)], Addressee("a b", kept))
    return request.path, json.loads(request.body)


QUESTION = {"question": "Wér?", "context": "Jim."}
RANKING = {"query": "q", "texts": ["a", "b"]}
PAIR = {"text": "a", "text_pair": "b"}
CLASSES, EMBEDS, TAGS = "text-classification", "feature-extraction", "token-classification"


@pytest.mark.parametrize(
    ("task", "protocol", "line", "path", "body"),
    [
        ("question-answering", "hugging-face", QUESTION, "/models/a%20b", {"inputs": QUESTION}),
        (CLASSES, "hugging-face", {"text": "a"}, "/models/a%20b", {"inputs": "a"}),
        (CLASSES, "hugging-face", PAIR, "/models/a%20b", {"inputs": PAIR}),
        (TAGS, "hugging-face", {"text": "a"}, "/models/a%20b", {"inputs": "a"}),
        (EMBEDS, "text-embeddings", {"text": "a"}, "/embed", {"inputs": "a"}),
        (CLASSES, "text-embeddings", {"text": "a"}, "/predict", {"inputs": "a"}),
        (CLASSES, "text-embeddings", PAIR, "/predict", {"inputs": [["a", "b"]]}),
        (CLASSES, "text-embeddings", RANKING, "/rerank", RANKING),
        (
            EMBEDS, "openai", {"text": "a"}, "/v1/embeddings",
            {"model": "a b", "input": "a", "encoding_format": "base64"},
        ),
        (CLASSES, "cohere", RANKING, "/v2/rerank", {"model": "a b", "query": "q", "documents": ["a", "b"]}),
        (
            CLASSES, "open-inference", RANKING, "/v2/models/a%20b/infer",
            {"inputs": [
                {"name": "query", "shape": [1], "datatype": "BYTES", "data": ["q"]},
                {"name": "texts", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]},
            ]},
        ),
    ],
)  # fmt: skip
def test_what_is_posted(task: str, protocol: str, line: Dict[str, Any], path: str, body: Any) -> None:
    assert asked(task, protocol, line) == (path, body)


@pytest.mark.parametrize(
    ("task", "protocol", "line", "fitting"),
    [
        ("question-answering", "openai", QUESTION, "hugging-face or open-inference"),
        ("question-answering", "text-embeddings", QUESTION, "hugging-face or open-inference"),
        (TAGS, "cohere", {"tokens": ["a"]}, "hugging-face or open-inference"),
        (CLASSES, "hugging-face", RANKING, "open-inference or text-embeddings or cohere"),
        (EMBEDS, "cohere", {"text": "a"}, "hugging-face or open-inference or text-embeddings or openai"),
    ],
)
def test_a_protocol_without_words_names_those_that_have_some(
    task: str, protocol: str, line: Dict[str, Any], fitting: str
) -> None:
    with pytest.raises(UsageError, match=f"{protocol} has no words") as refused:
        asked(task, protocol, line)
    assert refused.value.hint == f"--protocol {fitting}"


def test_what_a_model_does_not_offer_is_not_asked_of_it() -> None:
    with pytest.raises(UsageError, match="openai has no words"):
        asked(EMBEDS, "openai", {"text": "a"}, frozenset())
    with pytest.raises(UsageError, match="cohere has no words"):
        asked(CLASSES, "cohere", RANKING, frozenset({"labels"}))


def test_a_protocol_that_only_ranks_ranks_single_texts() -> None:
    assert asked(CLASSES, "cohere", {"text": "alone"})[1]["documents"] == ["alone"] * RANKED_TEXTS
    rankings = rankings_of(["a", "b", "c"])
    assert rankings[1] == {"query": "b", "texts": ["c", "a", "b", "c"]}


def test_a_name_is_asked_for_where_the_protocol_has_one() -> None:
    task = load_task("question-answering")
    inputs = [task.LINES.input(QUESTION)]
    nobody = Addressee(None, frozenset())
    assert requests_of("hugging-face", task, inputs, nobody)[0].path == "/"
    with pytest.raises(UsageError, match="names the model") as refused:
        requests_of("open-inference", task, inputs, nobody)
    assert refused.value.hint == "--model NAME"
    with pytest.raises(UsageError, match="no protocol 'grpc'") as unknown:
        requests_of("grpc", task, inputs, nobody)
    assert all(name in str(unknown.value.hint) for name in PROTOCOLS)
