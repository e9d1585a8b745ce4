"""Turns the logits of an example's rows (inputs.py) into labels with scores, or into a ranking. Pure."""

from typing import Any, Dict, List, Sequence

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.tasks.base import Column, Columns, ColumnType, Document
from neuronbert.tasks.text_classification.inputs import Example, Ranking
from neuronbert.tasks.text_classification.options import LabelOptions

Result = List[Dict[str, Any]]  # labels: label, score; a ranking: index, score, text if asked for. truncated if so

LOGITS = "logits"
RANKING_KEY = "index"  # which an entry of a ranking has, and a label has not


def decode(example: Example, outputs: Sequence[Outputs], options: LabelOptions) -> Result:
    """The labels of a text or pair, best first, or the texts of a ranking, best first.

    Each is a dictionary of ``label`` and ``score``, or of ``index`` (of the text among those given) and ``score``, with
    ``truncated`` (True) where the text did not fit the row.
    """
    if isinstance(example.asked, Ranking):
        return _ranked(example, np.array([row[LOGITS][0] for row in outputs]), options)
    problem = example.problem
    scores = apply_function(outputs[0][LOGITS], chosen_function(options, problem.function))
    more = {"truncated": True} if example.truncated[0] else {}
    return [
        {"label": problem.labels[number], "score": float(scores[number]), **more} for number in best_of(scores, options)
    ]


def _ranked(example: Example, logits: np.ndarray, options: LabelOptions) -> Result:
    scores = apply_function(logits[:, None], chosen_function(options, example.problem.ranking_function))[:, 0]
    # By the logits: scores near 0 and 1 are rounded to one another.
    order = np.argsort(-logits, kind="stable")[: options.top_k]
    return [_ranked_entry(example, number, float(scores[number]), options) for number in order.tolist()]


def best_of(scores: np.ndarray, options: LabelOptions) -> List[int]:
    """The numbers of the labels that are wanted, best first; of equal ones the first."""
    if options.top_k in (None, 1):
        return [int(scores.argmax())]  # most ask for one label, and sorting takes longer
    best: List[int] = np.argsort(-scores, kind="stable")[: options.top_k].tolist()
    return best


def _ranked_entry(example: Example, number: int, score: float, options: LabelOptions) -> Dict[str, Any]:
    entry: Dict[str, Any] = {RANKING_KEY: number, "score": score}
    if options.return_texts:
        entry["text"] = example.asked[1][number]
    return {**entry, "truncated": True} if example.truncated[number] else entry


def chosen_function(options: LabelOptions, default: str) -> str:
    """The name of the function that makes scores of logits."""
    return default if options.function_to_apply == "default" else options.function_to_apply


def apply_function(logits: np.ndarray, function: str) -> np.ndarray:
    """Scores, float64, of logits [labels] or [rows, labels]: "softmax" over the labels, "sigmoid", or "none"."""
    values = logits.astype(np.float64)
    if function == "none":
        return values
    if function == "sigmoid":
        return np.exp(-np.logaddexp(0.0, -values))
    powers: np.ndarray = np.exp(values - values.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def single(result: Result) -> Any:
    """A label alone where there is exactly one, else all of them; a ranking as it is."""
    return result[0] if len(result) == 1 and RANKING_KEY not in result[0] else result


COLUMNS: Columns = {  # the keys that ``document`` may give
    "label": Column(ColumnType.TEXT),
    "score": Column(ColumnType.NUMBER),
    "truncated": Column(ColumnType.FLAG),
    "labels": Column(ColumnType.OBJECTS),
    "ranking": Column(ColumnType.OBJECTS),
}


def document(result: Result, options: LabelOptions) -> Document:
    """A result as a line of JSON: ``ranking``, ``labels``, or one label's own keys where one was asked for."""
    if RANKING_KEY in result[0]:
        return {"ranking": result}
    return result[0] if (options.top_k or 1) == 1 else {"labels": result}


def result_text(result: Result) -> str:
    """One line for each label or text, best first."""
    return "\n".join(map(_entry_text, result))


def _entry_text(entry: Dict[str, Any]) -> str:
    named = f"{entry[RANKING_KEY]:>5}" if RANKING_KEY in entry else entry["label"]
    text = f"  {entry['text']}" if "text" in entry else ""
    truncated = "  (truncated: the text is longer than the model reads)" if "truncated" in entry else ""
    return f"{named}  (score {entry['score']:.4f}){text}{truncated}"
