"""Turns the best spans of an example's windows (spans.py) into ranked answers with exact character offsets.

The default ranking is that of the question-answering pipeline that transformers removed in 5.3: probabilities are
per window, answers with the same text (whatever its case) are one answer whose score is their sum.
"""

import math
from operator import itemgetter
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.tasks.base import Column, Columns, ColumnType
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.spans import Spans, is_reduced, spans_in
from neuronbert.tasks.question_answering.windows import Example, Window

Answer = Dict[str, Any]  # score, start, end, answer; with details also window and null_difference

QUICKLY_RANKED = 10_000  # spans, in less than about 0.05 s; what else costs time is counted as so many of them

_SCORE = itemgetter("score")


def rank_answers(
    example: Example, outputs: Sequence[Outputs], options: AnswerOptions = AnswerOptions()
) -> List[Answer]:
    """The best answers to an example, best first: dictionaries of score, start, end (characters) and answer.

    ``outputs``: of each window what the model returned, or what ``spans.reduce`` left of that. Never empty: a context
    without a token gives the empty answer with score 0.
    """
    if len(outputs) != len(example.windows):
        raise ValueError(f"{len(example.windows)} windows need as many outputs, got {len(outputs)}")
    per_window = [spans_in(window, row, options) for window, row in zip(example.windows, outputs)]
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
    """Whether ``rank_answers`` may take longer than about 0.05 s where a worker has reduced what it reduces."""
    tokens = len(example.encoded_context.ids)
    characters_per_token = len(example.context) / max(1, tokens)
    work = tokens / 5  # their characters and words are looked up once
    for window in example.windows:
        longest = min(options.max_answer_len, window.token_count)
        spans = window.token_count * longest
        answers = min(spans, options.candidates_per_window)
        work += 10 + answers * (1 + longest * characters_per_token / 500)
        if not is_reduced(window, options):
            # A span that is only scored costs numpy a fraction of what one costs that is made an answer.
            work += 20 + spans / 20
    return work > QUICKLY_RANKED


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
    for window, spans in zip(example.windows, per_window):
        starts, ends = _characters(example.encoded_context, window, spans, options.align_to_words)
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
                    "window": window.number,
                    "best": score,
                }
            else:
                answer["score"] += score
                if score > answer["best"]:
                    answer["best"], answer["window"] = score, window.number
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
