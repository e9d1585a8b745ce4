"""The calls, results and errors of our pipeline are those of the pipeline that it replaces."""

import types
import warnings
from typing import NamedTuple

import pytest

import neuronbert
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.engine import Engine
from neuronbert.engine.pipeline import pipeline
from neuronbert.errors import ArtifactError, InputError, NeuronBertError, UsageError
from neuronbert.tasks.question_answering.pipeline import QuestionAnsweringPipeline

Q1, Q2 = "Who was Jim Henson?", "Where was he born?"
C1 = "Jim Henson was a nice puppet maker."
C2 = "He was born in Greenville, Mississippi, and lived in Maryland."


@pytest.fixture(scope="module")
def engine(echo_artifact):
    with Engine(echo_artifact) as engine:
        yield engine


@pytest.fixture(scope="module")
def qa(engine):
    return pipeline("question-answering", model=engine)


@pytest.fixture(scope="module")
def first(qa):
    return qa(question=Q1, context=C1)


@pytest.fixture(scope="module")
def second(qa):
    return qa(question=Q2, context=C2)


class SquadExample:
    """As transformers had it, as far as the pipeline read it."""

    def __init__(self, question_text, context_text):
        self.question_text = question_text
        self.context_text = context_text


class Named(NamedTuple):
    question_text: str
    context_text: str


def item(question, context):
    return {"question": question, "context": context}


def test_a_result_is_a_dictionary_of_plain_values(first):
    assert {name: type(value) for name, value in first.items()} == {
        "score": float,
        "start": int,
        "end": int,
        "answer": str,
    }
    assert C1[first["start"] : first["end"]] == first["answer"] != ""


@pytest.mark.parametrize(
    "call",
    [
        lambda qa: qa(Q1, C1),
        lambda qa: qa(item(Q1, C1)),
        lambda qa: qa([item(Q1, C1)]),
        lambda qa: qa(SquadExample(Q1, C1)),
        lambda qa: qa([SquadExample(Q1, C1)]),
        lambda qa: qa(Named(Q1, C1)),
        lambda qa: qa(qa.create_sample(Q1, C1)),
        lambda qa: qa(data=item(Q1, C1)),
        lambda qa: qa(data=[item(Q1, C1)]),
        lambda qa: qa(X=item(Q1, C1)),
        lambda qa: qa(X=[item(Q1, C1)]),
        lambda qa: qa(question=[Q1], context=C1),
        lambda qa: qa(question=[Q1], context=[C1]),
        lambda qa: qa(item([Q1], [C1])),
        lambda qa: qa({**item(Q1, C1), "id": "56be4db0acb8001400a502ec"}),
    ],
)
def test_one_input_gives_one_result(qa, first, call):
    assert call(qa) == first


@pytest.mark.parametrize(
    "call",
    [
        lambda qa: qa([item(Q1, C1), item(Q2, C2)]),
        lambda qa: qa(item(Q1, C1), item(Q2, C2)),
        lambda qa: qa((item(Q1, C1), SquadExample(Q2, C2))),
        lambda qa: qa(SquadExample(Q1, C1), SquadExample(Q2, C2)),
        lambda qa: qa(qa.create_sample([Q1, Q2], [C1, C2])),
        lambda qa: qa(iter([item(Q1, C1), item(Q2, C2)])),
        lambda qa: qa(data=[item(Q1, C1), item(Q2, C2)]),
        lambda qa: qa(X=[item(Q1, C1), item(Q2, C2)]),
        lambda qa: qa(question=[Q1, Q2], context=[C1, C2]),
        lambda qa: qa(item([Q1, Q2], [C1, C2])),
        lambda qa: qa([item([Q1], [C1]), item([Q2], [C2])]),
    ],
)
def test_several_inputs_give_a_list(qa, first, second, call):
    assert call(qa) == [first, second]


def test_several_questions_share_a_context(qa, first):
    expected = [first, qa(question=Q2, context=C1)]
    assert qa(question=[Q1, Q2], context=C1) == expected
    assert qa(item([Q1, Q2], C1)) == expected


def test_no_input_gives_an_empty_list(qa):
    assert qa([]) == [] == qa(question=[], context=[])


def test_a_generator_is_answered_as_it_comes(qa, first, second):
    taken = []

    def items():
        for one in (item(Q1, C1), SquadExample(Q2, C2), item(Q1, C1)):
            taken.append(one)
            yield one

    results = qa(items())
    assert isinstance(results, types.GeneratorType) and not taken
    assert next(results) == first and len(taken) == 1
    assert list(results) == [second, first]
    assert list(qa(data=items(), batch_size=2)) == [first, second, first]


def test_a_batch_size_is_what_is_taken_from_a_generator_at_once(qa):
    taken = []
    items = (taken.append(number) or item(Q1, C1) for number in range(5))
    next(qa(items, batch_size=3))
    assert taken == [0, 1, 2]
    with pytest.raises(UsageError, match="batch_size must be a whole number of at least 1, not 0"):
        qa(Q1, C1, batch_size=0)


def test_a_generator_of_bad_items_fails_where_the_bad_one_is(qa, first):
    results = qa(one for one in (item(Q1, C1), {"question": Q1}))
    assert next(results) == first
    with pytest.raises(KeyError):
        next(results)


def test_a_torch_dataset_is_answered_lazily(qa, first, second):
    data = pytest.importorskip("torch.utils.data")

    class Questions(data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return [item(Q1, C1), item(Q2, C2)][index]

    results = qa(Questions())
    assert not isinstance(results, list)
    assert list(results) == [first, second]


def test_more_answers_come_as_a_list_best_first(qa, first):
    several = qa(question=Q1, context=C1, top_k=4)
    assert [type(several), len(several), several[0]] == [list, 4, first]
    assert [one["score"] for one in several] == sorted((one["score"] for one in several), reverse=True)
    assert [len(one) for one in qa(question=[Q1, Q2], context=C1, top_k=4)] == [4, 4]
    assert isinstance(qa(question=Q1, context="Jim", top_k=4), dict)


def test_topk_still_works_and_says_so(qa):
    with pytest.warns(UserWarning, match="^topk parameter is deprecated, use top_k instead$") as caught:
        several = qa(question=Q1, context=C1, topk=3)
    assert caught[0].filename == __file__
    assert several == qa(question=Q1, context=C1, top_k=3)


def test_keywords_can_be_given_once_and_changed_at_a_call(engine, qa):
    fixed = pipeline("question-answering", model=engine, top_k=3, max_answer_len=2, align_to_words=False)
    assert fixed(Q1, C1) == qa(Q1, C1, top_k=3, max_answer_len=2, align_to_words=False)
    assert fixed(Q1, C1, top_k=1) == qa(Q1, C1, max_answer_len=2, align_to_words=False)
    assert fixed(Q1, C1, top_k=None) == fixed(Q1, C1)


def test_every_keyword_has_an_effect(qa):
    long = " ".join([C1, C2] * 30)

    def windows(**keywords):
        keywords.setdefault("max_seq_len", 64)
        return max(one["window"] for one in qa(Q1, long, top_k=50, details=True, **keywords))

    assert windows(max_seq_len=384) < windows(doc_stride=10) < windows(doc_stride=40)
    assert windows(max_question_len=1, doc_stride=10) <= windows(doc_stride=10)
    assert max(len(one["answer"].split()) for one in qa(Q1, long, top_k=20, max_answer_len=1)) == 1
    impossible = qa(Q1, C1, top_k=50, handle_impossible_answer=True)
    assert [one["answer"] for one in impossible].count("") == 1
    assert qa(Q1, C1, null_threshold=-1e6)["answer"] == ""
    assert qa(Q1, C1, null_threshold=1e6)["answer"] != ""
    assert (
        sum(one["score"] for one in qa(Q1, long, top_k=500, ranking="document", max_seq_len=64, doc_stride=10)) < 1.01
    )


def test_padding_changes_nothing(qa, first):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for padding in (True, "longest", "max_length", "do_not_pad", None):
            assert qa(question=Q1, context=C1, padding=padding) == first


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (
            lambda qa: qa({"question": Q1}),
            KeyError,
            "You need to provide a dictionary with keys {question:..., context:...}",
        ),
        (
            lambda qa: qa([{"context": C1}]),
            KeyError,
            "You need to provide a dictionary with keys {question:..., context:...}",
        ),
        (lambda qa: qa(item(None, C1)), ValueError, "`question` cannot be None"),
        (lambda qa: qa(item(Q1, None)), ValueError, "`context` cannot be None"),
        (lambda qa: qa(item("", C1)), ValueError, "`question` cannot be empty"),
        (lambda qa: qa(question=Q1, context=""), ValueError, "`context` cannot be empty"),
        (lambda qa: qa(Q1, ""), ValueError, "`context` cannot be empty"),
        (lambda qa: qa([5]), ValueError, "5 argument needs to be of type (SquadExample, dict)"),
        (lambda qa: qa("Who"), ValueError, "W argument needs to be of type (SquadExample, dict)"),
        (
            lambda qa: qa(question=[Q1, Q2], context=[C1]),
            ValueError,
            "Questions and contexts don't have the same lengths",
        ),
        (lambda qa: qa(question=Q1, context=[C1]), ValueError, "Arguments can't be understood"),
        (lambda qa: qa(question=(Q1,), context=C1), ValueError, "Arguments can't be understood"),
        (lambda qa: qa(question=Q1), ValueError, f"Unknown arguments {{'question': '{Q1}'}}"),
        (lambda qa: qa(), ValueError, "Unknown arguments {}"),
        (lambda qa: qa(data=5), ValueError, "Invalid arguments {'data': 5}"),
        (lambda qa: qa(Q1, C1, top_k=0), ValueError, "top_k parameter should be >= 1 (got 0)"),
        (lambda qa: qa(Q1, C1, max_answer_len=0), ValueError, "max_answer_len parameter should be >= 1 (got 0"),
        (
            lambda qa: qa(Q1, C1, doc_stride=400),
            ValueError,
            "`doc_stride` (400) is larger than `max_seq_len` (384)",
        ),
    ],
)
def test_errors_are_those_of_the_old_pipeline(qa, call, kind, text):
    with pytest.raises(kind) as caught:
        call(qa)
    assert str(caught.value) == text
    assert isinstance(caught.value, NeuronBertError)


GOOD = {"question": Q1, "context": C1}


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        ({"question": "", "context": C1}, InputError, "inputs[2]: `question` cannot be empty"),
        ({"question": Q1, "context": ""}, InputError, "inputs[2]: `context` cannot be empty"),
        ({"question": Q1}, KeyError, "inputs[2]: You need to provide a dictionary with keys"),
        ({"question": Q1, "context": 5}, InputError, "inputs[2]: the context is of type int, not str"),
        ({"question": "why " * 400, "context": C1}, InputError, "inputs[2]: a question of 400 tokens"),
        ("text", InputError, "inputs[2]: text argument needs to be of type"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_an_error_names_the_input_that_is_wrong(qa, wrong, kind, text, batch_size):
    items = [GOOD, GOOD, wrong, GOOD]
    for asked in (items, iter(items)):
        with pytest.raises(kind) as caught:
            list(qa(asked if isinstance(asked, list) else (item for item in asked), batch_size=batch_size))
        assert caught.value.message.startswith(text)


def test_an_engine_names_it_too_in_whatever_chunk_it_is(engine):
    with pytest.raises(InputError, match=r"^inputs\[700\]: `question` cannot be empty"):
        engine.answer([(Q1, C1)] * 700 + [("", C1)])
    with pytest.raises(InputError, match=r"^`question` cannot be empty"):
        engine.answer([("", C1)])


@pytest.mark.parametrize("value", [5, b"Who?", ["Who?"]])
def test_text_that_is_none_is_refused_by_its_type(qa, value):
    for wrong in (item(Q1, value), SquadExample(value, C1)):
        with pytest.raises(InputError, match=f"is of type {type(value).__name__}, not str"):
            qa([wrong])


def test_options_are_checked_when_the_pipeline_is_made(engine):
    with pytest.raises(ValueError, match="top_k parameter should be >= 1"):
        pipeline("question-answering", model=engine, top_k=0)


def test_keywords_without_a_meaning_here_are_named(engine):
    with pytest.warns(UserWarning, match="device=0 is ignored: an artifact was compiled for its device") as caught:
        pipeline("question-answering", model=engine, device=0)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="tokenizer='bert-base' is ignored: the artifact holds the tokenizer"):
        pipeline("question-answering", model=engine, tokenizer="bert-base")
    with pytest.warns(UserWarning, match="top_n=3 is ignored: the question-answering pipeline has no such keyword"):
        pipeline("question-answering", model=engine)(Q1, C1, top_n=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline("question-answering", model=engine, device=-1, tokenizer=engine.tokenizer, framework=None)


def test_a_pipeline_is_made_from_a_folder(echo_artifact, first):
    qa = neuronbert.pipeline("question-answering", model=str(echo_artifact.folder), threads=1)
    assert isinstance(qa, QuestionAnsweringPipeline) and qa.task == "question-answering"
    assert qa(Q1, C1) == first
    assert pipeline(model=echo_artifact.folder)(Q1, C1) == first
    assert qa.tokenizer is qa.model.tokenizer


def test_a_checkpoint_must_be_compiled_first(tmp_path):
    with pytest.raises(ArtifactError, match="there is no artifact at deepset/minilm") as caught:
        pipeline("question-answering", model="deepset/minilm-uncased-squad2")
    assert caught.value.hint.startswith("neuronbert compile deepset/minilm-uncased-squad2 qa-artifact")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a checkpoint must be compiled before it can answer") as caught:
        pipeline("question-answering", model=tmp_path)
    assert f"neuronbert compile {tmp_path} qa-artifact" in caught.value.hint


def test_what_is_no_model_is_refused(engine):
    with pytest.raises(UsageError, match="there is no default one"):
        pipeline("question-answering")
    with pytest.raises(UsageError, match="neuronbert has no 'fill-mask' pipeline"):
        pipeline("fill-mask", model=engine)
    with pytest.raises(UsageError, match="a dict is not an artifact or an Engine"):
        pipeline("question-answering", model={})
    with pytest.raises(UsageError, match="chosen when an Engine is made"):
        pipeline("question-answering", model=engine, threads=1)


def test_a_document_of_many_questions_is_encoded_once(echo_artifact, monkeypatch):
    document, asked, encode = f"{C1} {C2} " * 40, [], Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: asked.extend(texts) or encode(self, texts))
    with Engine(echo_artifact) as engine:
        qa = pipeline("question-answering", model=engine)
        found = [qa(question=question, context="".join(list(document))) for question in (Q1, Q2, Q1)]
        assert [ranked[0] for ranked in engine.answer([(Q1, document), (Q2, document)])] == found[:2]
    assert found[0] == found[2] and asked.count(document) == 1
