"""One engine over a file of questions, without a runner: the other contender of measure_job.

Its child's arguments: ARTIFACT QUESTIONS.jsonl
"""

import json
import time
from typing import Sequence

from neuronbert.engine.engine import Engine


def main(arguments: Sequence[str]) -> None:
    """The child: its rate as JSON on stdout."""
    with open(arguments[1], encoding="utf-8") as file:
        pairs = [(line["question"], line["context"]) for line in map(json.loads, file)]
    with Engine.for_many(arguments[0]) as engine:
        started = time.perf_counter()
        answers = engine.answer(pairs)
        print(json.dumps({"inputs_per_s": len(answers) / (time.perf_counter() - started)}))
