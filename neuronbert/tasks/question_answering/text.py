"""Ranked answers (answers.py) as text for a person; the command line prints it."""

from typing import Iterable

from neuronbert.tasks.question_answering.answers import Answer


def answers_text(ranked: Iterable[Answer]) -> str:
    """One line for each answer: its text, then its score and place."""
    return "\n".join(
        f"{answer['answer'] or '(no answer)'}  (score {answer['score']:.4f}, "
        f"characters {answer['start']} to {answer['end']}{_details_text(answer)})"
        for answer in ranked
    )


def _details_text(answer: Answer) -> str:
    if "null_difference" not in answer:
        return ""
    window = "" if answer["window"] is None else f", window {answer['window']}"
    return f"{window}, null difference {answer['null_difference']:.2f}"
