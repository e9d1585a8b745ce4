"""Exact match and F1 as the official SQuAD scripts count them, to the last digit; evaluation.py reports them."""

import re
import string
from collections import Counter
from typing import AbstractSet, Callable, Dict, Mapping, Optional, Sequence, Tuple, TypeVar, Union

import numpy as np

from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.question_answering.squad import SquadQuestion

Number = Union[int, float]
Score = TypeVar("Score", bound=Number)

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and surplus white space, as SQuAD compares answers."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_exact(a: str, b: str) -> int:
    """1 if two answers are equal once normalised, else 0."""
    return int(normalize_answer(a) == normalize_answer(b))


def answer_f1(a: str, b: str) -> Number:
    """Token F1 of two answers, 0 to 1; an empty answer agrees only with an empty one (SQuAD v2.0's rule)."""
    return _token_f1(a, b, both_empty=1)


def mean_f1(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    """Mean over questions of the best token F1 against any of its gold answers, 0 to 1.

    ``golds[i]`` lists the answers accepted for ``predictions[i]``; an empty list means that no answer is right.
    """
    if len(predictions) != len(golds):
        raise ValueError(f"{len(predictions)} predictions for {len(golds)} questions")
    return float(np.mean([_best(answer_f1, text, accepted or ("",)) for text, accepted in zip(predictions, golds)]))


def evaluate_answers(
    questions: Sequence[SquadQuestion],
    predictions: Mapping[str, str],
    null_scores: Optional[Mapping[str, float]] = None,
    *,
    version: Optional[str] = None,
    null_threshold: float = 1.0,
) -> Dict[str, Number]:
    """The figures of the official SQuAD script, under its names and equal to the last digit; percentages.

    ``predictions`` maps question ids to answer texts ("" for no answer). Version "1.1" gives ``exact_match`` and
    ``f1``, a missing prediction counting as wrong. Version "2.0" gives ``exact``, ``f1``, ``total``, the same under
    ``HasAns_`` and ``NoAns_``, and with ``null_scores`` (id → probability that there is no answer) the best figures
    any threshold on it reaches; a score above ``null_threshold`` turns the prediction into no answer. By default the
    version is 2.0 if a question has no answer or null scores are given.

    Raises InputError for an empty list of questions, and for version 2.0 if a prediction or a null score is missing.
    """
    if not questions:
        raise InputError("there are no questions to evaluate", hint="give a SQuAD file with at least one question")
    if version is None:
        version = "2.0" if null_scores is not None or any(not item.answers for item in questions) else "1.1"
    if version == "1.1":
        return _evaluate_v1(questions, predictions)
    if version == "2.0":
        return _evaluate_v2(questions, predictions, null_scores, null_threshold)
    raise UsageError(f"there is no SQuAD version {version!r}", hint="1.1 or 2.0")


def question_f1(question: SquadQuestion, prediction: str, version: str = "1.1") -> Number:
    """One question's F1, 0 to 1, as the official script of that version counts it."""
    if version == "1.1":
        return _best(_answer_f1_v1, prediction, question.answers)
    return _best(answer_f1, prediction, _gold_v2(question))


def _evaluate_v1(questions: Sequence[SquadQuestion], predictions: Mapping[str, str]) -> Dict[str, Number]:
    exact = 0
    f1: Number = 0
    for item in questions:
        if not item.answers:
            message = f"question {item.id!r} has no answer, which SQuAD v1.1 does not allow"
            raise InputError(message, hint="evaluate it as version 2.0")
        if item.id in predictions:
            exact += _best(answer_exact, predictions[item.id], item.answers)
            # Added one by one as the official script does: sum() rounds differently since Python 3.12.
            f1 += _best(_answer_f1_v1, predictions[item.id], item.answers)
    return {"exact_match": 100.0 * exact / len(questions), "f1": 100.0 * f1 / len(questions)}


def _evaluate_v2(
    questions: Sequence[SquadQuestion],
    predictions: Mapping[str, str],
    null_scores: Optional[Mapping[str, float]],
    null_threshold: float,
) -> Dict[str, Number]:
    _refuse_missing(questions, predictions, "prediction")
    exact = {item.id: _best(answer_exact, predictions[item.id], _gold_v2(item)) for item in questions}
    f1 = {item.id: _best(answer_f1, predictions[item.id], _gold_v2(item)) for item in questions}
    answerable = {item.id: bool(item.answers) for item in questions}
    decided_exact: Mapping[str, Number] = exact
    decided_f1: Mapping[str, Number] = f1
    if null_scores is not None:
        _refuse_missing(questions, null_scores, "null score")
        declined = {key for key in exact if null_scores[key] > null_threshold}
        decided_exact, decided_f1 = (_decline(scores, declined, answerable) for scores in (exact, f1))
    figures: Dict[str, Number] = {}
    for prefix, keys in (
        ("", list(answerable)),
        ("HasAns_", [key for key, has in answerable.items() if has]),
        ("NoAns_", [key for key, has in answerable.items() if not has]),
    ):
        if keys:
            figures[f"{prefix}exact"] = 100.0 * sum(decided_exact[key] for key in keys) / len(keys)
            figures[f"{prefix}f1"] = 100.0 * sum(decided_f1[key] for key in keys) / len(keys)
            figures[f"{prefix}total"] = len(keys)
    if null_scores is not None:
        for name, scores in (("exact", exact), ("f1", f1)):
            best, threshold = _best_threshold(scores, predictions, null_scores, answerable)
            figures[f"best_{name}"], figures[f"best_{name}_thresh"] = best, threshold
    return figures


def _decline(
    scores: Mapping[str, Number], declined: AbstractSet[str], answerable: Mapping[str, bool]
) -> Dict[str, Number]:
    return {key: float(not answerable[key]) if key in declined else score for key, score in scores.items()}


def _best_threshold(
    scores: Mapping[str, Number],
    predictions: Mapping[str, str],
    null_scores: Mapping[str, float],
    answerable: Mapping[str, bool],
) -> Tuple[float, float]:
    """The best mean score, in percent, reached by declining above some null score, and that null score.

    Starts from declining everything and answers one question more at a time. Equal null scores are taken in the
    order of ``null_scores`` and may be split by the best point: that is what the official figure does.
    """
    score: Number = sum(not has for has in answerable.values())
    best, threshold = score, 0.0
    for key in sorted(null_scores, key=lambda key: null_scores[key]):
        if key not in scores:
            continue
        if answerable[key]:
            score += scores[key]
        elif predictions[key]:
            score -= 1
        if score > best:
            best, threshold = score, null_scores[key]
    return 100.0 * best / len(scores), threshold


def _refuse_missing(questions: Sequence[SquadQuestion], values: Mapping[str, object], what: str) -> None:
    missing = [item.id for item in questions if item.id not in values]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(questions)} questions have no {what}, the first is {missing[0]!r}",
            hint='give one for every id of the data ("" predicts that there is no answer)',
        )


def _gold_v2(question: SquadQuestion) -> Sequence[str]:
    """The answers of which something is left after normalising; without any, only the empty prediction is right."""
    return [text for text in question.answers if normalize_answer(text)] or [""]


def _answer_f1_v1(a: str, b: str) -> Number:
    return _token_f1(a, b, both_empty=0)


def _token_f1(a: str, b: str, *, both_empty: int) -> Number:
    ours, theirs = normalize_answer(a).split(), normalize_answer(b).split()
    if not ours and not theirs:
        return both_empty
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not shared:
        return 0
    precision, recall = shared / len(ours), shared / len(theirs)
    return (2 * precision * recall) / (precision + recall)


def _best(measure: Callable[[str, str], Score], prediction: str, accepted: Sequence[str]) -> Score:
    return max(measure(prediction, text) for text in accepted)
