"""The calls, results and errors of our token-classification pipeline are those of transformers'."""

import warnings
from random import Random
from typing import Any, Iterator, List

import pytest

import neuronbert
from neuronbert.engine.engine import Engine
from neuronbert.engine.pipeline import pipeline
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.token_classification.options import STRATEGIES
from neuronbert.tasks.token_classification.pipeline import TokenClassificationPipeline
from token_classification.tiny_taggers import random_text

TEXTS = ["jim henson was a nice puppet", "who sings?", "the puppet"]


@pytest.fixture(scope="module")
def engine(tagger_artifact: Any) -> Iterator[Engine]:
    with Engine(tagger_artifact, variant="torchscript", threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def ner(engine: Engine) -> TokenClassificationPipeline:
    found = pipeline("token-classification", model=engine)
    assert isinstance(found, TokenClassificationPipeline)
    return found


@pytest.fixture(scope="module")
def theirs(tagger_checkpoint: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForTokenClassification.from_pretrained(str(tagger_checkpoint))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tagger_checkpoint), model_max_length=64)
    return transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, device=-1)


def scores(result: Any) -> List[float]:
    """Every score of a result, in order."""
    if isinstance(result, dict):
        return [float(result["score"])]
    return [score for each in result for score in scores(each)]


def without_scores(result: Any) -> Any:
    if isinstance(result, dict):
        return {key: value for key, value in result.items() if key != "score"}
    return [without_scores(each) for each in result]


def assert_equal(ours: Any, theirs: Any) -> None:
    assert without_scores(ours) == without_scores(theirs)
    assert scores(ours) == pytest.approx(scores(theirs), abs=1e-4, rel=0)


# ---- calls


@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS[:1], TEXTS, ""], ids=["text", "list of one", "list", "empty"])
def test_the_shape_of_a_result_is_that_of_the_call(ner, theirs, inputs):
    assert_equal(ner(inputs), theirs(inputs))
    assert_equal(ner(inputs=inputs, aggregation_strategy="simple"), theirs(inputs, aggregation_strategy="simple"))


def test_a_tuple_is_a_list(ner):
    """transformers means to take one, and trips over it."""
    assert_equal(ner(tuple(TEXTS)), ner(TEXTS))
    assert_equal(ner(("jim", "henson"), is_split_into_words=True), ner(["jim", "henson"], is_split_into_words=True))


def test_a_generator_gives_a_generator(ner):
    taken = []

    def texts():
        for text in TEXTS:
            taken.append(text)
            yield text

    results = ner(texts(), batch_size=2)
    assert taken == []
    assert_equal(next(results), ner(TEXTS[0]))
    assert taken == TEXTS[:2]
    assert_equal(list(results), ner(TEXTS[1:]))


def test_a_dataset_gives_a_generator(ner):
    torch = pytest.importorskip("torch")

    class Texts(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(TEXTS)

        def __getitem__(self, number: int) -> str:
            return TEXTS[number]

    results = ner(Texts())
    assert not isinstance(results, list)
    # A Dataset need not end by itself: that it has a length must do.
    assert_equal([next(results) for _ in TEXTS], ner(TEXTS))


@pytest.mark.parametrize("inputs", [["jim", "henson"], [["jim", "henson"], ["the"]], [["jim"], "henson"]], ids=repr)
def test_words(ner, theirs, inputs):
    if "is_split_into_words" not in type(theirs)._sanitize_parameters.__code__.co_varnames:
        pytest.skip("this transformers takes texts only")
    try:
        expected = theirs(inputs, is_split_into_words=True)
    except (ValueError, TypeError, AttributeError):
        with pytest.raises(InputError):
            ner(inputs, is_split_into_words=True)
        return
    assert_equal(ner(inputs, is_split_into_words=True), expected)
    # What its constructor is told, transformers forgets at the call.
    assert_equal(TokenClassificationPipeline(ner.model, is_split_into_words=True)(inputs), expected)


def test_words_may_be_joined_by_anything(ner):
    (found,) = ner(["jim", "henson"], is_split_into_words=True, delimiter=" & ", ignore_labels=[])
    assert [(entity["start"], entity["end"]) for entity in found] == [(0, 3), (6, 12)]


# ---- results


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_long_texts_are_read_to_their_end(ner, theirs, strategy):
    text = random_text(Random(6), 150).rstrip()
    everything = {"aggregation_strategy": strategy, "ignore_labels": []}
    if strategy != "none":
        assert_equal(ner(text, **everything, stride=20), theirs(text, **everything, stride=20))
    for keywords in ({}, {"stride": 20}, {"max_length": 16}):
        assert ner(text, **everything, **keywords)[-1]["end"] == len(text)


def test_results_do_not_depend_on_what_shares_their_batch(ner):
    random = Random(7)
    texts = [random_text(random, random.randint(0, 60)) for _ in range(30)]
    together = ner(texts, aggregation_strategy="first")
    assert_equal(together, [ner(text, aggregation_strategy="first") for text in texts])


# ---- keywords


def test_a_calls_keywords_win(engine):
    ner = pipeline("token-classification", model=engine, aggregation_strategy="max", ignore_labels=[])
    assert "entity_group" in ner(TEXTS[0])[0]
    assert "entity" in ner(TEXTS[0], aggregation_strategy="NONE")[0]
    assert len(ner(TEXTS[0], aggregation_strategy="none")) == 6


@pytest.mark.parametrize(
    ("keywords", "strategy"),
    [
        ({"grouped_entities": True}, "simple"),
        ({"grouped_entities": True, "ignore_subwords": True}, "first"),
        ({"grouped_entities": False}, "none"),
        ({"ignore_subwords": True}, "none"),
        ({"grouped_entities": True, "aggregation_strategy": "max"}, "simple"),
    ],
)
def test_the_keywords_that_transformers_had_before(ner, keywords, strategy):
    with pytest.warns(UserWarning, match=f'aggregation_strategy="{strategy}"'):
        found = ner(TEXTS[0], **keywords)
    assert found == ner(TEXTS[0], aggregation_strategy=strategy)


@pytest.mark.parametrize("name", ["offset_mapping", "framework", "num_workers", "unheard_of"])
def test_what_has_no_effect_is_said(ner, name):
    with pytest.warns(UserWarning, match=f"{name}=1 is ignored: ") as caught:
        assert ner(TEXTS[0], **{name: 1}) == ner(TEXTS[0])
    assert caught[0].filename == __file__


def test_what_means_nothing_anywhere_passes_in_silence(engine, ner):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = TokenClassificationPipeline(engine, engine.tokenizer, device=-1, task="ner", stride=None)
        found = made(TEXTS[0], ignore_labels=[])
    assert found and found == ner(TEXTS[0], ignore_labels=[])


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"aggregation_strategy": "best"}, "there is no aggregation_strategy 'best'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"is_split_into_words": "yes"}, "is_split_into_words must be True or False"),
        ({"max_length": "long"}, "max_length must be a whole number of at least 1, not 'long'"),
    ],
)
def test_a_wrong_value_is_refused_at_once(engine, ner, keywords, reason):
    for call in (lambda: ner(TEXTS[0], **keywords), lambda: TokenClassificationPipeline(engine, **keywords)):
        with pytest.raises(UsageError, match=reason):
            call()


def test_a_stride_that_does_not_fit_a_row_is_refused(ner, theirs):
    for refused in (ValueError, UsageError):
        with pytest.raises(refused, match="stride`? must be less than"):
            (theirs if refused is ValueError else ner)(TEXTS[0], stride=64, aggregation_strategy="simple")


# ---- errors


@pytest.mark.parametrize("inputs", [[], (), None, 3, {"text": "a"}], ids=repr)
def test_no_input(ner, theirs, inputs):
    for read, refused in ((theirs, ValueError), (ner, InputError)):
        with pytest.raises(refused, match="At least one input is required"):
            read(inputs)


@pytest.mark.parametrize(
    ("inputs", "place"),
    [([3], ""), (["fine", 3], r"inputs\[1\]: "), ([["a", "b"]], ""), (["a", None], r"inputs\[1\]: ")],
)
def test_what_is_no_text(ner, inputs, place):
    reason = "When `is_split_into_words=False`, `sentence` must be an untokenized string"
    with pytest.raises(InputError, match=f"^{place}{reason}"):
        ner(inputs)
    with pytest.raises(InputError, match=reason):
        list(ner(each for each in inputs))


def test_what_are_no_words(ner):
    with pytest.raises(InputError, match="When `is_split_into_words=True`, `sentence` must be a list of tokens"):
        list(ner((each for each in ["jim"]), is_split_into_words=True))
    with pytest.raises(InputError, match="a word is of type int, not str"):
        ner([["jim", 3]], is_split_into_words=True)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
@pytest.mark.parametrize(
    ("wrong", "reason"), [("jim", "must be a list of tokens"), (["jim", 3], "a word is of type int")]
)
def test_an_error_names_the_place_in_a_generator(ner, wrong, reason, batch_size):
    words = [["jim"], ["who"], ["the"], wrong, ["a"]]
    with pytest.raises(InputError, match=rf"^inputs\[3\]: (.* )?{reason}"):
        list(ner((each for each in words), is_split_into_words=True, batch_size=batch_size))


def test_another_tasks_pipeline_is_refused(engine, echo_artifact):
    with pytest.raises(UsageError, match="is for token-classification, not for question-answering"):
        pipeline("question-answering", model=engine)
    with pytest.raises(UsageError, match="is for question-answering, not for token-classification"):
        pipeline("token-classification", model=echo_artifact)


def test_transformers_has_a_shorter_name_for_it(engine, ner):
    assert pipeline("ner", model=engine)(TEXTS) == ner(TEXTS)


def test_the_tokenizer_is_the_artifacts(ner, engine):
    assert ner.tokenizer is engine.tokenizer and ner.task == "token-classification"
    assert neuronbert.pipeline is pipeline
