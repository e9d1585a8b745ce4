"""Turns the logits of an example's windows (windows.py) into ranked answers with exact character offsets.

The default ranking is that of the question-answering pipeline that transformers removed in 5.3: probabilities are
per window, answers with the same text (whatever its case) are one answer whose score is their sum.
"""

import math
from operator import itemgetter
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.tasks.base import Column, Columns, ColumnType
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.windows import Example, Window

Answer = Dict[str, Any]  # score, start, end, answer; with details also window and null_difference

QUICKLY_RANKED = 10_000  # spans, in less than about 0.05 s

_SCORE = itemgetter("score")
_NO_TOKENS = np.empty(0, dtype=np.int64)


class Softmax(NamedTuple):
    """Probabilities of starting (row 0) and ending (row 1) at each token of a region, and at the null token."""

    tokens: np.ndarray  # float32, shape [2, tokens]
    null_score: float  # that the classification token is start and end, which says that there is no answer
    top: np.ndarray  # float32, shape [2, 1]: the largest logit
    total: np.ndarray  # float32, shape [2, 1]: sum of exp(logit - top)

    @property
    def log_scale(self) -> float:
        """Logarithm of exp(start logit + end logit) / probability of the span."""
        return float((self.top + np.log(self.total)).sum())


class Spans(NamedTuple):
    """The best spans of one window, best first; starts and ends are tokens of the context, ends included."""

    starts: np.ndarray  # int64, shape [spans]
    ends: np.ndarray  # int64, shape [spans]
    scores: List[float]
    null_score: float
    null_logit: float
    best_logit: float  # -inf when there is no span
    log_scale: float  # logarithm of exp(start logit + end logit) / score, for the document ranking (else nan)
    log_mass: float  # logarithm of the sum of exp(start logit + end logit) over all spans, for the same


def logits_of(outputs: Sequence[Outputs]) -> Tuple[List[np.ndarray], List[np.ndarray]]:
    """Start and end logits of each window, float32 [tokens] each, as ``rank_answers`` takes them."""
    return [window["start_logits"] for window in outputs], [window["end_logits"] for window in outputs]


def rank_answers(
    example: Example,
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    options: AnswerOptions = AnswerOptions(),
) -> List[Answer]:
    """The best answers to an example, best first: dictionaries of score, start, end (characters) and answer.

    One float32 array of shape [tokens] per window in each of ``start_logits`` and ``end_logits``; padding behind
    the window's tokens is ignored. Never empty: a context without a token gives the empty answer with score 0.
    """
    if not len(start_logits) == len(end_logits) == len(example.windows):
        raise ValueError(
            f"{len(example.windows)} windows need as many logits, "
            f"got {len(start_logits)} for the start and {len(end_logits)} for the end"
        )
    per_window = [
        _spans(window, start, end, options) for window, start, end in zip(example.windows, start_logits, end_logits)
    ]
    null_score = min(spans.null_score for spans in per_window)
    if options.ranking == "document":
        per_window, null_score = _rescale(per_window)
    answers = _merge(example, per_window, options)
    null_difference = min(spans.null_logit for spans in per_window) - max(spans.best_logit for spans in per_window)
    if options.handle_impossible_answer and options.null_threshold is None:
        answers.append(_empty(null_score))
    answers.sort(key=_SCORE, reverse=True)
    if options.null_threshold is not None and null_difference > options.null_threshold:
        answers.insert(0, _empty(null_score))
    answers = answers[: options.top_k] or [_empty(0.0)]
    return [_detailed(answer, null_difference) for answer in answers] if options.details else _plain(answers)


def is_slow_to_rank(example: Example, options: AnswerOptions) -> bool:
    """Whether ``rank_answers`` may take longer than about 0.05 s."""
    work = 0
    for window in example.windows:
        spans = window.token_count * min(options.max_answer_len, window.token_count)
        # A span that is only scored costs numpy a fraction of what one costs that is made an answer.
        work += min(spans, options.candidates_per_window) + spans // 20
    return work > QUICKLY_RANKED


def best_spans(
    start: np.ndarray, end: np.ndarray, count: int, max_answer_len: int
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``count`` best (start, end, start[i] * end[j]) with i <= j < i + max_answer_len, best first.

    ``start`` and ``end`` are float32 of shape [tokens], not negative. Equal scores come in reading order.
    """
    tokens = len(start)
    width = min(max_answer_len, tokens)
    # band[k, i] = start[i] * end[i + k]: only spans that are short enough, tokens * width instead of tokens².
    # Past the last token there is -1, so that no real span scores below it.
    padded = np.empty(tokens + width - 1, dtype=end.dtype)
    padded[:tokens] = end
    padded[tokens:] = -1.0
    band = np.ndarray((width, tokens), padded.dtype, padded, 0, padded.strides * 2) * start
    best_of_start = band.max(axis=0)
    if count == 1:
        first = int(best_of_start.argmax())
        length = int(band[:, first].argmax())
        return np.array([first]), np.array([first + length]), band[length : length + 1, first]
    # The best `count` spans begin at the `count` tokens whose own best spans are best.
    starts = np.arange(tokens)
    if count < tokens:
        starts = best_of_start.argpartition(tokens - count)[tokens - count :]
        starts.sort()
        band = band.take(starts, axis=1)
    scores = band.T.ravel()
    chosen = np.negative(scores).argsort(kind="stable")[:count]
    if not scores[chosen[-1]] > 0:  # -1 * 0 is no less than 0: only real spans may take part
        real = np.flatnonzero((starts[:, None] + np.arange(width) < tokens).ravel())
        chosen = real[np.negative(scores[real]).argsort(kind="stable")[:count]]
    rows = chosen // width
    firsts = starts.take(rows)
    return firsts, firsts + (chosen - rows * width), scores.take(chosen)


def _spans(window: Window, start_logits: np.ndarray, end_logits: np.ndarray, options: AnswerOptions) -> Spans:
    """The best spans among the context's tokens: an answer has no place elsewhere."""
    null_logit = float(start_logits[0]) + float(end_logits[0])
    low, high = window.context_start, window.context_start + window.token_count
    softmax = _softmax(start_logits, end_logits, low, high)
    if low == high:
        return Spans(_NO_TOKENS, _NO_TOKENS, [], softmax.null_score, null_logit, -math.inf, 0.0, -math.inf)
    start, end = softmax.tokens
    firsts, lasts, scores = best_spans(start, end, options.candidates_per_window, options.max_answer_len)
    best_logit = float(start_logits[low + firsts[0]]) + float(end_logits[low + lasts[0]])
    log_scale = log_mass = math.nan
    if options.ranking == "document":
        log_scale = softmax.log_scale
        log_mass = log_scale + _log(_mass(start, end, options.max_answer_len))
    firsts, lasts = firsts + window.first_token, lasts + window.first_token
    return Spans(firsts, lasts, scores.tolist(), softmax.null_score, null_logit, best_logit, log_scale, log_mass)


def _softmax(start_logits: np.ndarray, end_logits: np.ndarray, low: int, high: int) -> Softmax:
    """Softmax over the context's tokens and position 0: the classification token has a probability but is no answer."""
    # The classification token takes the position before the context; there always is one.
    values = np.array((start_logits[low - 1 : high], end_logits[low - 1 : high]), dtype=np.float32)
    values[0, 0], values[1, 0] = start_logits[0], end_logits[0]
    top = values.max(axis=1, keepdims=True)
    values -= top
    np.exp(values, out=values)
    total = values.sum(axis=1, keepdims=True)
    values /= total
    return Softmax(values[:, 1:], float(values[0, 0] * values[1, 0]), top, total)


def _mass(start: np.ndarray, end: np.ndarray, max_answer_len: int) -> float:
    """Sum of start[i] * end[j] over all spans i <= j < i + max_answer_len."""
    sums = np.concatenate(([0.0], np.cumsum(end, dtype=np.float64)))
    firsts = np.arange(len(start))
    return float(start @ (sums[np.minimum(firsts + max_answer_len, len(start))] - sums[firsts]))


def _rescale(per_window: Sequence[Spans]) -> Tuple[List[Spans], float]:
    """The same spans with scores from one softmax over all windows, and the empty answer's score in it."""
    null_logit = min(spans.null_logit for spans in per_window)
    logs = [spans.log_mass for spans in per_window] + [null_logit]
    top = max(logs)
    log_total = top + math.log(sum(math.exp(log - top) for log in logs))
    rescaled = []
    for spans in per_window:
        factor = math.exp(spans.log_scale - log_total) if spans.scores else 0.0
        rescaled.append(spans._replace(scores=[score * factor for score in spans.scores]))
    return rescaled, math.exp(null_logit - log_total)


def _merge(example: Example, per_window: Sequence[Spans], options: AnswerOptions) -> List[Answer]:
    """One answer per text, its score the sum over its spans, at the position of its first span."""
    answers: Dict[str, Answer] = {}
    for index, spans in enumerate(per_window):
        starts, ends = _characters(example.encoded_context, example.windows[index], spans, options.align_to_words)
        for start, end, score in zip(starts, ends, spans.scores):
            text = example.context[start:end]
            key = text.lower()
            answer = answers.get(key)
            if answer is None:
                answers[key] = {
                    "score": score,
                    "start": start,
                    "end": end,
                    "answer": text,
                    "window": index,
                    "best": score,
                }
            else:
                answer["score"] += score
                if score > answer["best"]:
                    answer["best"], answer["window"] = score, index
                    if options.ranking == "document":
                        answer["start"], answer["end"], answer["answer"] = start, end, text
    return list(answers.values())


def _characters(context: Encoded, window: Window, spans: Spans, align_to_words: bool) -> Tuple[List[int], List[int]]:
    """Where each span begins and ends in the context; of a word that the window cuts what it shows."""
    firsts, lasts = spans.starts, spans.ends
    if align_to_words:
        words = context.words
        # A span with an end that belongs to no word stays as it is.
        are_words = words.are_words.take(firsts) & words.are_words.take(lasts)
        last_token = window.first_token + window.token_count - 1
        firsts = np.where(are_words, np.maximum(words.firsts.take(firsts), window.first_token), firsts)
        lasts = np.where(are_words, np.minimum(words.lasts.take(lasts), last_token), lasts)
    starts, stops = context.characters
    return starts.take(firsts).tolist(), stops.take(lasts).tolist()


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _empty(score: float) -> Answer:
    return {"score": score, "start": 0, "end": 0, "answer": "", "window": None}


def _plain(answers: Sequence[Answer]) -> List[Answer]:
    return [{key: answer[key] for key in ("score", "start", "end", "answer")} for answer in answers]


def _detailed(answer: Answer, null_difference: float) -> Answer:
    detailed = {key: answer[key] for key in ("score", "start", "end", "answer", "window")}
    return {**detailed, "null_difference": null_difference}


def single(ranked: List[Answer]) -> Union[Answer, List[Answer]]:
    """The answer itself where there is exactly one, else the list."""
    return ranked[0] if len(ranked) == 1 else ranked


def columns(options: AnswerOptions) -> Columns:
    """The keys that ``flat`` may give: a line may have a top_k of its own."""
    whole, number = Column(ColumnType.WHOLE), Column(ColumnType.NUMBER)
    one = {"score": number, "start": whole, "end": whole, "answer": Column(ColumnType.TEXT)}
    details = {"window": whole, "null_difference": number} if options.details else {}
    return {**one, **details, "answers": Column(ColumnType.OBJECTS)}


def flat(ranked: Sequence[Answer], top_k: int) -> Answer:
    """For JSON: one answer's own keys where one was asked for, else a list under ``answers``; null for infinity."""
    answers = [{name: None if value == math.inf else value for name, value in answer.items()} for answer in ranked]
    return answers[0] if top_k == 1 and answers else {"answers": answers}
