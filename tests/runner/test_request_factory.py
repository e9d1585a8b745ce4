"""neuronbert.runner.request_factory: what of each row's outputs is wanted; test_runner.py has the rest."""

from typing import Any, List, Optional, Tuple

import numpy as np
import pytest

from neuronbert import Runner
from neuronbert.tasks.question_answering import spans
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.windows import encode_examples

CONTEXT = "Jim Henson built the first Kermit in 1955 from his mother's old coat. " * 40


@pytest.fixture(scope="module")
def runner(echo_artifact: Any) -> Any:
    with Runner(echo_artifact, workers=1) as runner:
        yield runner


def wanted_by(runner: Runner, **keywords: Any) -> List[Optional[Tuple[int, ...]]]:
    (request,) = runner.prepare([("Who?", CONTEXT)], **keywords).take()
    return [row.wanted for row in request.rows]


def test_of_each_row_is_wanted_what_its_task_needs(runner: Runner) -> None:
    (example,) = encode_examples(runner.tokenizer, [("Who?", CONTEXT)])
    assert len(example.windows) > 1
    assert wanted_by(runner) == spans.wanted_of(example, AnswerOptions())
    assert None not in wanted_by(runner)
    assert wanted_by(runner, max_answer_len=3) == spans.wanted_of(example, AnswerOptions(max_answer_len=3))


def test_all_of_it_where_that_is_less_and_of_tokens(runner: Runner) -> None:
    assert set(wanted_by(runner, top_k=5000)) == {None}
    ids = np.array([[101, 2040, 102, 3958, 27227, 102]])
    request = runner._requests.of_tokens(0.0, ids, None, None, None, False)
    assert [row.wanted for row in request.rows] == [None]
