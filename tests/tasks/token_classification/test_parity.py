"""Our entities against those of transformers' own TokenClassificationPipeline, over random checkpoints of every family.

Of each family and with each strategy 30 texts that fit a row and, where transformers reads longer ones, 30 of several
rows, 1,080 in all; and some with other options.
"""

from pathlib import Path
from random import Random
from typing import Any, Dict, List, NamedTuple

import pytest
from tiny_checkpoints import FAMILIES, write_vocabulary

from neuronbert.tasks.token_classification.entities import Entity, entities_of_text
from neuronbert.tasks.token_classification.options import STRATEGIES, EntityOptions, StrideOptions
from neuronbert.tasks.token_classification.windows import encode_texts
from token_classification.tiny_taggers import WORDS, Tagger, random_text, write_tagger

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")

TOKENS = 64  # of a row
TEXTS = 30
SCORE_TOLERANCE = 1e-4
WORD_LISTS = 10

pytestmark = pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")


class Pair(NamedTuple):
    """Both readers of one checkpoint."""

    ours: Tagger
    theirs: Any


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A checkpoint of each family, read by both."""
    folder = write_tagger(tmp_path_factory.mktemp("parity") / "checkpoint", request.param)
    return Pair(Tagger(folder), their_pipeline(folder))


def their_pipeline(folder: Path, **tokenizer: Any) -> Any:
    model = transformers.AutoModelForTokenClassification.from_pretrained(str(folder))
    tokens = transformers.AutoTokenizer.from_pretrained(str(folder), model_max_length=TOKENS, **tokenizer)
    return transformers.pipeline("token-classification", model=model, tokenizer=tokens, device=-1)


def ours(tagger: Tagger, text: Any, options: EntityOptions, **stride: Any) -> List[Entity]:
    (example,) = encode_texts(tagger.tokenizer, [text], StrideOptions(**stride))
    return entities_of_text(example, tagger.outputs(example), options)


def places(entities: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [{name: value for name, value in entity.items() if name != "score"} for entity in entities]


def assert_equal(own: List[Dict[str, Any]], their: List[Dict[str, Any]], asked: Any) -> None:
    assert places(own) == places(their), asked
    expected = [float(entity["score"]) for entity in their]
    assert [entity["score"] for entity in own] == pytest.approx(expected, abs=SCORE_TOLERANCE, rel=0), asked


def tokens_of(tagger: Tagger, text: str) -> int:
    return len(tagger.tokenizer.encode([text])[0].ids)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_of_a_row_are_those_of_transformers(pair: Pair, strategy: str) -> None:
    random = Random(1)
    found = compared = 0
    while compared < TEXTS:
        text = random_text(random, random.randint(0, 12))
        # Of a text without a token, transformers 4 joins no words, and raises TypeError.
        if not 0 < tokens_of(pair.ours, text) <= TOKENS - 2:
            continue
        compared += 1
        ignored = ("O",) if compared % 2 else ()
        own = ours(pair.ours, text, EntityOptions(strategy, ignored))
        assert_equal(own, pair.theirs(text, aggregation_strategy=strategy, ignore_labels=list(ignored)), text)
        found += len(own)
    assert found > TEXTS


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_entities_of_several_rows_are_those_of_transformers(pair: Pair, strategy: str) -> None:
    random = Random(2)
    most_rows = 0
    compared = 0
    while compared < TEXTS:
        text, stride = random_text(random, random.randint(40, 120)), random.choice((0, 1, 7, 16, 40))
        if tokens_of(pair.ours, text) <= TOKENS - 2:
            continue
        compared += 1
        (example,) = encode_texts(pair.ours.tokenizer, [text], StrideOptions(stride))
        most_rows = max(most_rows, len(example.windows))
        ignored = ("O",) if compared % 2 else ()
        own = entities_of_text(example, pair.ours.outputs(example), EntityOptions(strategy, ignored))
        theirs = pair.theirs(text, aggregation_strategy=strategy, stride=stride, ignore_labels=list(ignored))
        assert_equal(own, without_doubled(theirs), (text, stride))
    assert most_rows > 8


def without_doubled(theirs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """transformers lists the first entity twice if it has no character, as a lone space of RoBERTa's tokenizer has."""
    doubled = len(theirs) > 1 and theirs[0] is theirs[1] and theirs[0]["start"] == theirs[0]["end"]
    return theirs[1:] if doubled else theirs


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_to_ignore(pair: Pair, strategy: str) -> None:
    random = Random(3)
    for ignored in ([], ["O", "B-PER"], ["O", "PER"], ["LOC"]):
        text = random_text(random, 6)
        their = pair.theirs(text, aggregation_strategy=strategy, ignore_labels=ignored)
        assert_equal(ours(pair.ours, text, EntityOptions(strategy, tuple(ignored))), their, (text, ignored))


@pytest.mark.parametrize("delimiter", [" ", ", "])
def test_words_are_read_as_transformers_reads_them(pair: Pair, delimiter: str) -> None:
    random = Random(4)
    if "is_split_into_words" not in transformers.TokenClassificationPipeline._sanitize_parameters.__code__.co_varnames:
        pytest.skip(f"transformers {transformers.__version__} takes texts only")
    for number in range(WORD_LISTS):
        words = [random.choice(WORDS) for _ in range(random.randint(1, 9))]
        strategy = STRATEGIES[number % len(STRATEGIES)]
        (their,) = pair.theirs(words, is_split_into_words=True, delimiter=delimiter, aggregation_strategy=strategy)
        assert_equal(ours(pair.ours, words, EntityOptions(strategy), delimiter=delimiter), their, words)


def test_a_tokenizer_that_puts_a_space_in_front(tmp_path: Path) -> None:
    """As RoBERTa's taggers have it. Their later rows begin with a space that we leave out, as all others do."""
    folder = write_tagger(tmp_path / "checkpoint", "roberta")
    write_vocabulary(folder, "roberta", add_prefix_space=True)
    tagger, theirs = Tagger(folder), their_pipeline(folder, add_prefix_space=True)
    random = Random(5)
    for _ in range(20):
        text = random_text(random, 3)
        for strategy in STRATEGIES:
            their = theirs(text, aggregation_strategy=strategy)
            assert_equal(ours(tagger, text, EntityOptions(strategy)), their, text)
