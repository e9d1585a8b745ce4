"""Question answering as Hugging Face's clients ask for it over HTTP (tasks/http.py)."""

import math
from typing import Any, Dict, FrozenSet, List, Union

from neuronbert.checkpoint.families import Config
from neuronbert.tasks.http import Asked, Struct, alone, as_list, body_type, keywords_of
from neuronbert.tasks.question_answering.lines import Pair
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions


class Question(Struct):
    """A question, and the text that may answer it."""

    question: str
    context: str


BODY = body_type("QuestionAnswering", Union[Question, List[Question]], WindowOptions, AnswerOptions)
EXAMPLE = {
    "inputs": {
        "question": "Who built the first Kermit?",
        "context": "Jim Henson built the first Kermit in 1955 from his mother's old coat and half a ping-pong ball.",
    }
}


def offers(config: Config) -> FrozenSet[str]:
    """Nothing: only its own protocol has words for it."""
    return frozenset()


def asked(body: Any) -> Asked:
    """An answer is an object; with ``top_k`` above 1 a list of them; several questions have a list of either."""
    keywords = keywords_of(body)
    is_listed = (keywords.get("top_k") or 1) > 1

    def answer(results: Any) -> Any:
        return alone(body.inputs, [_shaped(result, is_listed) for result in results])

    return Asked([Pair(each.question, each.context) for each in as_list(body.inputs)], keywords, answer)


def _shaped(result: Any, is_listed: bool) -> Any:
    """The pipeline's result, which is no list where there happens to be one answer only."""
    answers = [_finite(each) for each in as_list(result)]
    return answers if is_listed or len(answers) != 1 else answers[0]


def _finite(answer: Dict[str, Any]) -> Dict[str, Any]:
    """JSON has no infinity, which null_difference may be."""
    return {name: None if value == math.inf else value for name, value in answer.items()}
