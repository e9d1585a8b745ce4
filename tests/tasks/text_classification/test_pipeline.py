"""The calls, results and errors of our pipeline are those of transformers' text-classification pipeline."""

import inspect
import types
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from tiny_classifiers import LABELS, POSITIONS, labels_of, tokenizer_of

import neuronbert
from neuronbert.artifact.manifest import Artifact
from neuronbert.engine.engine import Engine
from neuronbert.engine.pipeline import pipeline
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.text_classification.options import LabelOptions
from neuronbert.tasks.text_classification.pipeline import TextClassificationPipeline

TASK = "text-classification"
T1, T2 = "who was jim henson?", "the puppet, a nice one"
PAIR = {"text": T1, "text_pair": T2}
LONG = "the puppet " * 100


@pytest.fixture(scope="module")
def classify(engine: Engine) -> Any:
    return pipeline(TASK, model=engine)


@pytest.fixture(scope="module")
def make_theirs(checkpoint: Path) -> Callable[..., Any]:
    """Makes transformers' own pipeline of the same checkpoint."""
    pytest.importorskip("torch")
    from neuronbert.checkpoint.reference_model import transformers

    loaded = transformers.pipeline(TASK, model=str(checkpoint), device="cpu")

    def make(**keywords: Any) -> Any:
        if not keywords:
            return loaded
        return transformers.pipeline(TASK, model=loaded.model, tokenizer=loaded.tokenizer, device="cpu", **keywords)

    return make


def listed(result: Any) -> Any:
    """A result, with what comes one after another in a list."""
    return result if isinstance(result, (list, dict)) else list(result)


def assert_alike(ours: Any, theirs: Any) -> None:
    """The same lists of the same dictionaries, with scores that differ by rounding."""
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, list):
        assert len(ours) == len(theirs), (ours, theirs)
        for one, other in zip(ours, theirs):
            assert_alike(one, other)
    else:
        assert ours == {"label": theirs["label"], "score": pytest.approx(theirs["score"], abs=1e-4)}


def in_turn(*items: Any) -> Iterator[Any]:
    yield from items


# ---- every form of a call, with every keyword, against transformers

CALLS: Dict[str, Callable[..., Any]] = {
    "text": lambda pipe, **keywords: pipe(T1, **keywords),
    "empty text": lambda pipe, **keywords: pipe("", **keywords),
    "dict": lambda pipe, **keywords: pipe({"text": T1}, **keywords),
    "dict of a pair": lambda pipe, **keywords: pipe(PAIR, **keywords),
    "dict of a pair with an empty text": lambda pipe, **keywords: pipe({"text": T1, "text_pair": ""}, **keywords),
    "dict of a pair with none": lambda pipe, **keywords: pipe({"text": T1, "text_pair": None}, **keywords),
    "list of one": lambda pipe, **keywords: pipe([T1], **keywords),
    "list": lambda pipe, **keywords: pipe([T1, T2, T1], **keywords),
    "list of dicts": lambda pipe, **keywords: pipe([PAIR, {"text": T2}], **keywords),
    "list of both": lambda pipe, **keywords: pipe([T2, PAIR], **keywords),
    "old form of a pair": lambda pipe, **keywords: pipe([[[T1, T2]]], **keywords),
    "old form of a pair with an empty text": lambda pipe, **keywords: pipe([[[T1, ""]]], **keywords),
    "old form of two pairs": lambda pipe, **keywords: pipe([[[T1, T2]], [[T2, T1]]], **keywords),
    "generator": lambda pipe, **keywords: pipe(in_turn(T1, T2), **keywords),
    "generator of dicts": lambda pipe, **keywords: pipe(in_turn(PAIR, {"text": T2}), **keywords),
}
KEYWORDS: Dict[str, Dict[str, Any]] = {
    "none": {},
    "top_k 1": {"top_k": 1},
    "top_k 2": {"top_k": 2},
    "top_k None": {"top_k": None},
    "top_k of more labels than there are": {"top_k": 50},
    "softmax": {"function_to_apply": "softmax"},
    "SIGMOID": {"function_to_apply": "SIGMOID"},
    "no function": {"function_to_apply": "none"},
    "several": {"function_to_apply": "sigmoid", "top_k": 2, "truncation": True, "batch_size": 2, "padding": True},
    "functionless": {"function_to_apply": None},
}


@pytest.mark.parametrize("keywords", KEYWORDS.values(), ids=KEYWORDS.keys())
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_is_answered_as_by_transformers(
    classify: Any, make_theirs: Callable[..., Any], call: Callable[..., Any], keywords: Dict[str, Any]
) -> None:
    assert_alike(listed(call(classify, **keywords)), listed(call(make_theirs(), **keywords)))


@pytest.mark.parametrize("keywords", KEYWORDS.values(), ids=KEYWORDS.keys())
def test_so_it_is_with_keywords_of_the_pipeline(
    engine: Engine, make_theirs: Callable[..., Any], keywords: Dict[str, Any]
) -> None:
    ours, theirs = pipeline(TASK, model=engine, **keywords), make_theirs(**keywords)
    for call in CALLS.values():
        assert_alike(listed(call(ours)), listed(call(theirs)))


@pytest.mark.parametrize("called", [None, 1, 2])
@pytest.mark.parametrize("made", [None, 1, 2, ""])
def test_a_call_s_top_k_wins(engine: Engine, make_theirs: Callable[..., Any], made: Any, called: Any) -> None:
    ours, theirs = pipeline(TASK, model=engine, top_k=made), make_theirs(top_k=made)
    for name in ("text", "dict", "list", "generator"):
        assert_alike(listed(CALLS[name](ours, top_k=called)), listed(CALLS[name](theirs, top_k=called)))
    assert_alike(ours(T1, function_to_apply="none"), theirs(T1, function_to_apply="none"))


def test_texts_of_a_torch_dataset(classify: Any, make_theirs: Callable[..., Any]) -> None:
    data = pytest.importorskip("torch.utils.data")

    class Texts(data.Dataset):  # type: ignore[misc,name-defined]
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return [T1, PAIR, T2][index]

    results = classify(Texts(), top_k=2)
    assert not isinstance(results, list)
    assert_alike(list(results), list(make_theirs()(Texts(), top_k=2)))


def test_texts_that_are_too_long_are_cut_as_with_truncation(classify: Any, make_theirs: Callable[..., Any]) -> None:
    theirs = make_theirs()
    for asked in (LONG, {"text": T1, "text_pair": LONG}, {"text": LONG, "text_pair": LONG}, {"text": LONG}):
        for max_length in (POSITIONS, 20):
            (ours,), (expected,) = (
                pipe([asked], truncation=True, max_length=max_length) for pipe in (classify, theirs)
            )
            assert ours.pop("truncated") is True
            assert_alike(ours, expected)


# ---- return_all_scores, which older releases have

OLD_CALLS = ("text", "dict", "list", "list of dicts", "generator")


@pytest.mark.parametrize("place", ["pipeline", "call"])
@pytest.mark.parametrize("every", [True, False])
def test_all_scores_are_in_the_order_of_the_labels(
    engine: Engine, make_theirs: Callable[..., Any], every: bool, place: str
) -> None:
    """Whoever asked so reads the score of a label by its number."""
    from neuronbert.checkpoint.reference_model import transformers

    known = inspect.signature(transformers.TextClassificationPipeline._sanitize_parameters).parameters
    keywords = {"return_all_scores": every}
    made, called = (keywords, {}) if place == "pipeline" else ({}, keywords)
    with pytest.warns(UserWarning, match="`return_all_scores` is now deprecated") as caught:
        ours = pipeline(TASK, model=engine, **made)
        results = {name: listed(CALLS[name](ours, **called)) for name in OLD_CALLS}
    assert {warning.filename for warning in caught} == {__file__}
    if "return_all_scores" in known:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = make_theirs(**made)
            for name, result in results.items():
                assert_alike(result, listed(CALLS[name](theirs, **called)))
    plain = pipeline(TASK, model=engine)
    if every:
        assert [entry["label"] for entry in results["text"][0]] == list(LABELS)
        assert sorted(entry["score"] for entry in results["dict"]) == sorted(
            entry["score"] for entry in plain({"text": T1}, top_k=None)
        )
    else:
        assert results["text"] == plain(T1) and results["dict"] == plain({"text": T1})


def test_top_k_goes_before_return_all_scores(engine: Engine) -> None:
    with pytest.warns(UserWarning, match="`return_all_scores`"):
        every = pipeline(TASK, model=engine, return_all_scores=True)
    assert len(every(T1)[0]) == 3
    assert every(T1, top_k=2) == pipeline(TASK, model=engine)(T1, top_k=2)
    with pytest.warns(UserWarning, match="`return_all_scores`"):
        assert every(T1, top_k=1, return_all_scores=True) == every(T1, top_k=1)


# ---- keywords


def test_keywords_without_a_meaning_here_are_named(engine: Engine, classify: Any) -> None:
    with pytest.warns(UserWarning, match="device=0 is ignored: an artifact was compiled for its device") as caught:
        pipeline(TASK, model=engine, device=0)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="tokenizer='bert-base' is ignored: the artifact holds the tokenizer"):
        pipeline(TASK, model=engine, tokenizer="bert-base")
    with pytest.warns(UserWarning, match="top_n=3 is ignored: the text-classification pipeline has no such keyword"):
        assert classify(T1, top_n=3) == classify(T1)
    with pytest.warns(UserWarning, match="doc_stride=8 is ignored"):
        classify([T1], doc_stride=8)
    with pytest.warns(
        UserWarning, match="truncation='only_second' is ignored: of a pair, the longer text is cut first"
    ):
        classify(PAIR, truncation="only_second")


def test_keywords_that_change_nothing_are_taken_in_silence(engine: Engine, classify: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe = pipeline(TASK, model=engine, device=-1, tokenizer=engine.tokenizer, framework=None, device_map=None)
        for truncation in (True, False, None, "longest_first", "do_not_truncate"):
            assert pipe(T1, truncation=truncation, padding="max_length") == classify(T1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"top_k": 0}, "top_k must be a whole number, 1 or more, not 0"),
        ({"top_k": -3}, "top_k must be a whole number, 1 or more, not -3"),
        ({"function_to_apply": "tanh"}, "there is no function 'tanh'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"max_length": 0}, "max_length must be a whole number, 1 or more, not 0"),
        ({"max_length": "long"}, "max_length must be a whole number, 1 or more, not 'long'"),
    ],
)
def test_wrong_values_are_refused_at_once(engine: Engine, classify: Any, keywords: Any, message: str) -> None:
    for call in (lambda: pipeline(TASK, model=engine, **keywords), lambda: classify(T1, **keywords)):
        with pytest.raises(UsageError, match=f"^{message}"):
            call()
    with pytest.raises(UsageError, match="a max_length of 3 leaves no room"):
        classify(T1, max_length=3)


def test_a_function_may_be_an_enumeration_of_transformers(classify: Any, make_theirs: Callable[..., Any]) -> None:
    make_theirs()
    from transformers.pipelines.text_classification import ClassificationFunction

    for function in ClassificationFunction:
        assert classify(T1, function_to_apply=function) == classify(T1, function_to_apply=function.value)


# ---- what is no input


@pytest.mark.parametrize(
    "asked",
    [5, None, [5], [None], [T1, 5], [[T1, T2]], [T1, [T1, T2]], [[[T1, T2], [T1, T2]]], [[]],
     {"text": 5}, {"text": None, "text_pair": T1}, {"text_pair": T1}, {}, [{}]],
)  # fmt: skip
def test_what_transformers_refuses_is_refused(classify: Any, make_theirs: Callable[..., Any], asked: Any) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        make_theirs()(asked)
    with pytest.raises(InputError) as caught:
        classify(asked)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "asked", [{"text": [T1, T2]}, {"text": T1, "text_pair": [T2]}, [{"text": [T1]}], (T1, T2), {"text": {"text": T1}}]
)
def test_what_transformers_takes_for_a_batch_is_refused(classify: Any, asked: Any) -> None:
    """It answers the first text of such a batch, and forgets the others."""
    with pytest.raises(InputError):
        classify(asked)


def test_pairs_in_lists_are_refused_in_the_words_of_transformers(
    classify: Any, make_theirs: Callable[..., Any]
) -> None:
    for asked in ([T1, T2], (T1, T2)):
        with pytest.raises(ValueError) as theirs:
            make_theirs()([[T1, T2]])
        with pytest.raises(InputError) as ours:
            classify([asked])
        assert ours.value.message == f"inputs[0]: {theirs.value}"


def test_a_key_of_a_dictionary_that_means_nothing_is_named(classify: Any) -> None:
    with pytest.raises(InputError, match="there is no key 'label'"):
        classify({"text": T1, "label": "calm"})
    with pytest.raises(InputError, match="the key 'text' is missing"):
        classify({"text_pair": T1})


@pytest.mark.parametrize(
    "wrong", [5, {"text": 5}, {"text": T1, "text_pair": 5}, [T1, T2], [[T1, 5]], {"text_pair": T1}]
)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_an_error_names_the_input_that_is_wrong(classify: Any, wrong: Any, batch_size: int) -> None:
    items = [T1, PAIR, T2, wrong, T1]
    with pytest.raises(InputError, match=r"^inputs\[3\]: "):
        classify(items, batch_size=batch_size)
    results = classify(in_turn(*items), batch_size=batch_size)
    with pytest.raises(InputError, match=r"^inputs\[3\]: "):
        list(results)


class Picky:
    """An Answerer whose tokenizer cannot encode one text, which shows only when it is asked."""

    def __init__(self, folder: Path):
        self.tokenizer = tokenizer_of(folder, **labels_of(LABELS))
        self.asked: List[List[Any]] = []

    def answer(self, pairs: Any, window_options: Any = None, answer_options: Any = None) -> List[Any]:
        self.asked.append(list(pairs))
        if "bad" in pairs:
            raise InputError("this text cannot be encoded")
        return [[{"label": each, "score": 1.0}] for each in pairs]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
def test_so_it_does_where_only_the_tokenizer_knows(tmp_path: Path, batch_size: int) -> None:
    pipe = TextClassificationPipeline(Picky(tmp_path), batch_size=batch_size)
    results = pipe(in_turn("a", "b", "c", "d", "bad", "e"))
    with pytest.raises(InputError, match=r"^inputs\[4\]: this text cannot be encoded"):
        list(results)


# ---- streams


def test_a_generator_is_answered_as_it_comes(classify: Any) -> None:
    taken: List[str] = []

    def texts() -> Iterator[str]:
        for text in (T1, T2, T1, T2, T1):
            taken.append(text)
            yield text

    results = classify(texts())
    assert isinstance(results, types.GeneratorType) and not taken
    first = next(results)
    assert first == classify({"text": T1}) and len(taken) == 1
    assert_alike([first, *results], classify([T1, T2, T1, T2, T1]))
    del taken[:]
    next(classify(texts(), batch_size=3))
    assert len(taken) == 3


def test_no_input_gives_an_empty_list(classify: Any) -> None:
    assert classify([]) == [] == list(classify(in_turn()))


# ---- rankings


@pytest.fixture(scope="module")
def rerank(scorer: Engine) -> Any:
    return pipeline(TASK, model=scorer)


def test_rank_orders_texts_by_their_score(rerank: Any, scorer: Engine) -> None:
    texts = [T2, "", "jim", T1, "who"]
    ranked = rerank.rank(T1, texts, return_texts=True)
    assert sorted(entry["index"] for entry in ranked) == list(range(5))
    scores = [entry["score"] for entry in ranked]
    assert scores == sorted(scores, reverse=True) and all(0 < score < 1 for score in scores)
    for entry in ranked:
        assert entry["text"] == texts[entry["index"]]
        (alone,) = scorer.answer([TextPair(T1, entry["text"])])[0]
        assert alone["score"] == pytest.approx(entry["score"], abs=1e-5)
    assert rerank.rank(T1, tuple(texts), top_k=2) == [
        {"index": entry["index"], "score": entry["score"]} for entry in ranked[:2]
    ]


def test_rank_has_the_function_and_the_length_of_its_pipeline(scorer: Engine, rerank: Any) -> None:
    logits = pipeline(TASK, model=scorer, function_to_apply="none").rank(T1, [T1, T2])
    assert [entry["index"] for entry in logits] == [entry["index"] for entry in rerank.rank(T1, [T1, T2])]
    assert logits != rerank.rank(T1, [T1, T2])
    short = pipeline(TASK, model=scorer, max_length=8).rank(T1, [T2])
    assert short[0]["truncated"] is True


def test_what_cannot_be_ranked(classify: Any, rerank: Any) -> None:
    with pytest.raises(InputError, match="this model tells 3 labels apart"):
        classify.rank(T1, [T2])
    with pytest.raises(InputError, match="there are no texts to rank"):
        rerank.rank(T1, [])
    with pytest.raises(InputError, match="the texts are one text"):
        rerank.rank(T1, T2)
    with pytest.raises(InputError, match="the text is of type int"):
        rerank.rank(T1, [T2, 5])
    with pytest.raises(InputError, match="the query is of type NoneType"):
        rerank.rank(None, [T2])
    with pytest.raises(UsageError, match="top_k must be a whole number"):
        rerank.rank(T1, [T2], top_k=0)


# ---- how a pipeline is made


def test_a_pipeline_is_made_from_a_folder(artifact: Artifact, classify: Any, engine: Engine) -> None:
    made = neuronbert.pipeline(TASK, model=str(artifact.folder), variant="torchscript", threads=1)
    assert isinstance(made, TextClassificationPipeline) and made.task == TASK
    assert made(T1) == classify(T1) == pipeline(model=engine)(T1)
    assert made.tokenizer is made.model.tokenizer
    with pytest.raises(UsageError, match=f"is for {TASK}, not for question-answering"):
        pipeline("question-answering", model=engine)


def test_labels_are_those_of_the_engine(engine: Engine, classify: Any) -> None:
    assert classify([T1, PAIR], top_k=3) == engine.answer([T1, TextPair(T1, T2)], answer_options=LabelOptions(top_k=3))
