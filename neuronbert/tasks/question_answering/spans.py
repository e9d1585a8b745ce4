"""The best spans of a window, from its logits: numbers only, so that a worker finds them beside the model.

A module that is a Reduction (tasks/base.py); answers.py makes answers of the spans.
"""

import math
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from neuronbert.backends.outputs import PER_ROW, Output, Outputs
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.windows import Example, Window

START_LOGITS, END_LOGITS = "start_logits", "end_logits"  # what the model returns, float32 of each token
STARTS, ENDS, SCORES, FACTS = "span_starts", "span_ends", "span_scores", "span_facts"

# What is left of a row: its spans, filled up to as many as the row with most has, and the number of them with the rest
# of what Spans holds.
OUTPUTS = (Output(STARTS, PER_ROW), Output(ENDS, PER_ROW), Output(SCORES, PER_ROW), Output(FACTS, PER_ROW, (6,)))

FEW_SPANS = 64  # 1.3 KiB of a row
QUICKLY_SCORED = 50_000  # spans of a row, in less than about 1 ms: a worker has other requests' rows too
_LOGITS_BYTES = 2 * 4  # of a token
_SPAN_BYTES = 8 + 8 + 4  # of one span in STARTS, ENDS and SCORES

_NO_TOKENS = np.empty(0, dtype=np.int64)


class Wanted(NamedTuple):
    """Which spans of a window are wanted; whole numbers, for a row of them travels with the window."""

    context_start: int  # position in the window of the first context token
    first_token: int  # index of that token among all tokens of the context
    token_count: int  # context tokens in the window
    candidates: int  # spans, at most
    max_answer_len: int  # tokens of a span, at most
    over_document: int  # 1: also what the document ranking needs, else 0

    @classmethod
    def of(cls, window: Window, options: AnswerOptions) -> "Wanted":
        """Those that ``options`` need of ``window``."""
        return cls(
            window.context_start,
            window.first_token,
            window.token_count,
            options.candidates_per_window,
            options.max_answer_len,
            int(options.ranking == "document"),
        )


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


def wanted_of(example: Example, options: AnswerOptions) -> List[Optional[Wanted]]:
    """What is wanted of each of the example's windows; None where that is its logits."""
    return [Wanted.of(window, options) if is_reduced(window, options) else None for window in example.windows]


def is_reduced(window: Window, options: AnswerOptions) -> bool:
    """Whether the spans of a window are quickly found, and are few or take no more room than its logits."""
    tokens = window.token_count
    most = max(FEW_SPANS, len(window.input_ids) * _LOGITS_BYTES // _SPAN_BYTES)
    return tokens * min(options.max_answer_len, tokens) <= QUICKLY_SCORED and options.candidates_per_window <= most


def reduce(outputs: Outputs, wanted: np.ndarray) -> Outputs:
    """The spans of each row, in place of its logits; ``wanted``: a Wanted of each, int64 of shape [rows, 6]."""
    logits = zip(outputs[START_LOGITS], outputs[END_LOGITS])
    found = [spans_of(start, end, Wanted(*row)) for (start, end), row in zip(logits, wanted.tolist())]
    shape = len(found), max(len(spans.scores) for spans in found)
    starts, ends = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    scores = np.zeros(shape, dtype=np.float32)
    for number, spans in enumerate(found):
        count = len(spans.scores)
        starts[number, :count], ends[number, :count], scores[number, :count] = spans[:3]
    facts = np.array([(len(spans.scores), *spans[3:]) for spans in found])
    return {STARTS: starts, ENDS: ends, SCORES: scores, FACTS: facts}


def spans_in(window: Window, outputs: Outputs, options: AnswerOptions) -> Spans:
    """The best spans of a window, of what the model returned for it or of what ``reduce`` left of that.

    ``reduce`` may have left more than these options want.
    """
    wanted = Wanted.of(window, options)
    if FACTS not in outputs:
        return spans_of(outputs[START_LOGITS], outputs[END_LOGITS], wanted)
    facts = outputs[FACTS].tolist()
    count = min(int(facts[0]), wanted.candidates)
    return Spans(outputs[STARTS][:count], outputs[ENDS][:count], outputs[SCORES][:count].tolist(), *facts[1:])


def spans_of(start_logits: np.ndarray, end_logits: np.ndarray, wanted: Wanted) -> Spans:
    """The best spans among the context's tokens: an answer has no place elsewhere.

    Logits are float32 of shape [tokens]; padding behind the window's tokens is ignored.
    """
    null_logit = float(start_logits[0]) + float(end_logits[0])
    low, high = wanted.context_start, wanted.context_start + wanted.token_count
    softmax = _softmax(start_logits, end_logits, low, high)
    if low == high:
        return Spans(_NO_TOKENS, _NO_TOKENS, [], softmax.null_score, null_logit, -math.inf, 0.0, -math.inf)
    start, end = softmax.tokens
    firsts, lasts, scores = best_spans(start, end, wanted.candidates, wanted.max_answer_len)
    best_logit = float(start_logits[low + firsts[0]]) + float(end_logits[low + lasts[0]])
    log_scale = log_mass = math.nan
    if wanted.over_document:
        log_scale = softmax.log_scale
        log_mass = log_scale + _log(_mass(start, end, wanted.max_answer_len))
    firsts, lasts = firsts + wanted.first_token, lasts + wanted.first_token
    return Spans(firsts, lasts, scores.tolist(), softmax.null_score, null_logit, best_logit, log_scale, log_mass)


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


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
