"""Evaluates embeddings: correlations of similarities with the scores of pairs, or how well queries find their texts."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.families import Config
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, UsageError, positive
from neuronbert.tasks.agreement import for_json
from neuronbert.tasks.base import Document, PathLike, Table
from neuronbert.tasks.feature_extraction.data import (
    FORM,
    PAIRS_FORM,
    ScoredPair,
    Search,
    is_search,
    load_pairs,
    load_search,
)
from neuronbert.tasks.feature_extraction.inputs import Example, encode_examples, modules_for, prompt_of
from neuronbert.tasks.feature_extraction.modules import SIMILARITIES, SentenceModules, modules_of
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions, TextOptions
from neuronbert.tasks.feature_extraction.results import EMBEDDING, decode
from neuronbert.tasks.feature_extraction.similarity import pair_similarities, similarities
from neuronbert.tasks.scoring import RetrievalFigures, pearson, spearman

RANKED = 100  # documents of a query that are looked at, the figure of MAP
TOP = (1, 3, 5, 10)
QUERIES_TOGETHER = 256  # whose similarities with every document are in memory at once
# The prompts that sentence-transformers' encode_query and encode_document take, where the checkpoint has them.
QUERY_PROMPTS, DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")


class Reading(NamedTuple):
    """The embedding of one text, and the measure that its checkpoint compares embeddings by."""

    embedding: np.ndarray
    truncated: bool
    similarity: str


@dataclass(frozen=True)
class Comparison:
    """How the embeddings differ from those of ``against``."""

    against: str
    similarity: str  # its own measure
    metrics: Dict[str, float]  # of ``against``, as EvaluationReport.metrics
    mean_cosine: Optional[float]  # of the two embeddings of each text; None where they differ in width
    least_cosine: Optional[float]


@dataclass(frozen=True)
class EvaluationReport:
    """What an artifact's embeddings score on a file of scored pairs, or of queries with the texts that answer them."""

    data: str
    kind: str  # "pairs" or "search"
    texts: int  # that were embedded, each once
    truncated: int  # of them, those that were longer than a row
    pairs: int  # or queries
    similarity: str  # the checkpoint's own measure
    artifact: str
    variant: str
    metrics: Dict[str, float]
    seconds: float  # from texts to embeddings, loading not counted
    environment: Document
    comparison: Optional[Comparison] = None

    @property
    def texts_per_s(self) -> float:
        return self.texts / self.seconds

    def as_dict(self) -> Document:
        """Every figure, for JSON, which has no NaN: null stands for it."""
        document = {**asdict(self), "metrics": for_json(self.metrics), "texts_per_s": self.texts_per_s}
        if self.comparison is not None:
            document["comparison"]["metrics"] = for_json(self.comparison.metrics)
        return document

    def tables(self) -> List[Union[str, Table]]:
        """Lines and tables for a person."""
        cut = f", {self.truncated} of them cut to the model's length" if self.truncated else ""
        what = "pairs" if self.kind == "pairs" else "queries"
        facts = [
            ("artifact", f"{self.artifact} ({self.variant})"),
            ("data", f"{self.data}: {self.pairs} {what}, {self.texts} texts{cut}"),
            *((name, f"{value:.4f}") for name, value in self.metrics.items()),
            ("texts/s", f"{self.texts_per_s:.1f} (from text to embeddings, loading not counted)"),
        ]
        return [Table(facts), *([] if self.comparison is None else ["", *_comparison(self.comparison, self)])]


def _comparison(comparison: Comparison, ours: EvaluationReport) -> Iterator[Union[str, Table]]:
    if comparison.mean_cosine is None:
        yield f"against {comparison.against}, whose embeddings have another width"
    else:
        cosines = f"{comparison.mean_cosine:.4f} in the mean, {comparison.least_cosine:.4f} at least"
        yield f"against {comparison.against}: the cosines of both embeddings of a text are {cosines}"
    if ours.kind == "search" and comparison.similarity != ours.similarity:
        yield f"each by its checkpoint's own measure: was {comparison.similarity}, is {ours.similarity}"
    rows = [[name, f"{theirs:.4f}", f"{ours.metrics[name]:.4f}"] for name, theirs in comparison.metrics.items()]
    yield Table(rows, ("figure", "was", "is"))


class EmbeddingEvaluation:
    """One evaluation (tasks.base.TaskEvaluation) on scored pairs, or on a search."""

    def __init__(
        self,
        name: str,
        data: Union[Sequence[ScoredPair], Search],
        text_options: TextOptions,
        embedding_options: EmbeddingOptions,
    ):
        self.name = name
        self._data = data
        self._text_options = text_options
        self._embedding_options = embedding_options
        self._queries, self._documents = _texts_of(data)

    @classmethod
    def of(
        cls, path: PathLike, limit: Optional[int], text_options: TextOptions, embedding_options: EmbeddingOptions
    ) -> "EmbeddingEvaluation":
        """The evaluation on a file's first ``limit`` pairs or queries; InputError for a pair without a score."""
        limit = positive("limit", limit)
        if is_search(path):
            return cls(str(path), load_search(path, limit), text_options, embedding_options)
        pairs = load_pairs(path, limit)
        for number, pair in enumerate(pairs, start=1):
            if pair.text_pair is None or pair.score is None:
                what = "text_pair" if pair.text_pair is None else "score"
                raise InputError(f"{path}, record {number} has no {what}", hint=FORM)
        if limit == 1:
            raise UsageError(
                "a limit of 1 leaves one pair, which correlates with nothing", hint="a limit of at least 2, or none"
            )
        if len(pairs) < 2:
            raise InputError(f"{path} has one pair, which correlates with nothing", hint=PAIRS_FORM)
        return cls(str(path), pairs, text_options, embedding_options)

    @property
    def inputs(self) -> List[str]:
        """The texts of the pairs, each once; or the queries, then the documents."""
        return [*self._queries, *self._documents]

    def options_for(self, tokenizer: Tokenizer) -> TextOptions:
        """The options for rows. A search puts the checkpoint's prompts for queries and documents before them.

        UsageError for an artifact that gives no embedding of a text.
        """
        return self._options("this artifact", modules_for(tokenizer))

    def for_other(self, config: Config, options: TextOptions) -> Tuple["EmbeddingEvaluation", TextOptions]:
        """An evaluation of the same data with the other's own prompts; UsageError as ``options_for``."""
        other = EmbeddingEvaluation(self.name, self._data, self._text_options, self._embedding_options)
        return other, other._options("what it is compared with", modules_of(config))

    def _options(self, who: str, modules: SentenceModules) -> TextOptions:
        if not modules.pooling:
            raise UsageError(
                f"{who} gives an embedding of each token, and none of a text to compare",
                hint="compile the checkpoint with --pooling auto or mean",
            )
        options = self._text_options
        if isinstance(self._data, Search) and options.prompt is None and options.prompt_name is None:
            return self._prompted(who, modules, self._data)
        prompt_of(modules, options)  # one that the checkpoint does not have
        return options

    def _prompted(self, who: str, modules: SentenceModules, search: Search) -> TextOptions:
        of_queries, of_documents = (_prompt(modules, names) for names in (QUERY_PROMPTS, DOCUMENT_PROMPTS))
        if of_queries is None and of_documents is None:
            return self._text_options
        default = modules.prompts.get(modules.default_prompt or "", "")
        queries, documents = (default if own is None else own for own in (of_queries, of_documents))
        if queries == documents:
            return replace(self._text_options, prompt=queries)
        if modules.pools_on_host:
            raise UsageError(
                f"{who} pools without its prompts, of which it has one for queries and one for documents",
                hint="--prompt or --prompt-name, for both",
            )
        self._queries = [queries + query for query in search.queries]
        self._documents = [documents + document for document in search.documents]
        return replace(self._text_options, prompt="")

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: TextOptions) -> None:
        """Raise InputError naming the first of ``count`` texts from ``first`` on that cannot be encoded."""
        for text in self.inputs[first : first + count]:
            try:
                encode_examples(tokenizer, [text], options)
            except InputError as error:
                raise InputError(f"{self.name}: {text[:60]!r}: {error.message}", hint=error.hint) from None

    def read(self, example: Example, outputs: Sequence[Outputs]) -> Reading:
        """The text's embedding."""
        result = decode(example, outputs, self._embedding_options)
        return Reading(result[EMBEDDING], example.truncated, example.modules.similarity)

    def report(self, readings: Sequence[Reading], **facts: Any) -> EvaluationReport:
        """The figures; ``facts`` are the report's fields that no embedding changes."""
        searched = isinstance(self._data, Search)
        return EvaluationReport(
            data=self.name,
            kind="search" if searched else "pairs",
            texts=len(readings),
            truncated=sum(reading.truncated for reading in readings),
            pairs=len(self._data.queries) if isinstance(self._data, Search) else len(self._data),
            similarity=readings[0].similarity,
            metrics=self._metrics(readings),
            **facts,
        )

    def compared(
        self, report: EvaluationReport, readings: Sequence[Reading], against: str, against_readings: Sequence[Reading]
    ) -> EvaluationReport:
        """The report, with the figures of ``against``, and how its embeddings differ."""
        ours, theirs = (np.stack([each.embedding for each in side]) for side in (readings, against_readings))
        cosines = pair_similarities("cosine", ours, theirs) if ours.shape == theirs.shape else None
        comparison = Comparison(
            against,
            against_readings[0].similarity,
            self._metrics(against_readings),
            None if cosines is None else float(cosines.mean()),
            None if cosines is None else float(cosines.min()),
        )
        return replace(report, comparison=comparison)

    def _metrics(self, readings: Sequence[Reading]) -> Dict[str, float]:
        embeddings = np.stack([reading.embedding for reading in readings])
        if isinstance(self._data, Search):
            queries = len(self._data.queries)
            return search_metrics(embeddings[:queries], embeddings[queries:], self._data, readings[0].similarity)
        place = {text: number for number, text in enumerate(self._queries)}
        return pair_metrics(
            embeddings[[place[pair.text] for pair in self._data]],
            embeddings[[place[str(pair.text_pair)] for pair in self._data]],
            [pair.score or 0.0 for pair in self._data],
        )


def _texts_of(data: Union[Sequence[ScoredPair], Search]) -> Tuple[List[str], List[str]]:
    if isinstance(data, Search):
        return data.queries, data.documents
    return list(dict.fromkeys(text for pair in data for text in pair[:2] if text is not None)), []


def _prompt(modules: SentenceModules, names: Sequence[str]) -> Optional[str]:
    """The first of the checkpoint's prompts called so; None where it has none, or only empty ones."""
    return next((modules.prompts[name] for name in names if modules.prompts.get(name)), None)


def pair_metrics(a: np.ndarray, b: np.ndarray, scores: Sequence[float]) -> Dict[str, float]:
    """Spearman's and Pearson's correlation of the similarities of ``a`` and ``b``, [pairs, width], with the scores.

    By each of the four measures, as the EmbeddingSimilarityEvaluator of sentence-transformers, and named as there.
    """
    measured = {name: pair_similarities(name, a, b) for name in SIMILARITIES}
    return {
        f"{kind}_{name}": correlation(scores, values)
        for name, values in measured.items()
        for kind, correlation in (("spearman", spearman), ("pearson", pearson))
    }


def search_metrics(queries: np.ndarray, documents: np.ndarray, search: Search, similarity: str) -> Dict[str, float]:
    """How well embeddings of queries, [queries, width], find those of documents, [documents, width].

    As the InformationRetrievalEvaluator of sentence-transformers, by one measure, and named as there.
    """
    figures = RetrievalFigures.of(_ranked(queries, documents, similarity), search.relevant)
    return {
        **{f"accuracy@{k}": figures.accuracy(k) for k in TOP},
        **{f"precision@{k}": figures.precision(k) for k in TOP},
        **{f"recall@{k}": figures.recall(k) for k in TOP},
        "ndcg@10": figures.ndcg(10),
        "mrr@10": figures.mrr(10),
        f"map@{RANKED}": figures.map(RANKED),
    }


def _ranked(queries: np.ndarray, documents: np.ndarray, similarity: str) -> List[List[int]]:
    """The numbers of each query's best documents, best first."""
    ranked: List[List[int]] = []
    for first in range(0, len(queries), QUERIES_TOGETHER):
        alike = similarities(similarity, queries[first : first + QUERIES_TOGETHER], documents)
        ranked += np.argsort(-alike, axis=1, kind="stable")[:, :RANKED].tolist()
    return ranked
