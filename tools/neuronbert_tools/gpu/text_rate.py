"""A process that answers a data file's questions from text, many times over; its rates as one JSON document.

    python -m neuronbert_tools.gpu.text_rate ARTIFACT VARIANT DATA WAY SECONDS

WAY is engine (one process) or runner (tokenising and answers in this process, the GPU in another).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from neuronbert import Runner
from neuronbert.engine.engine import Engine
from neuronbert_tools.measurements.usage import usage_of
from neuronbert_tools.questions import Pair, squad_pairs


def repeated(answer: Callable[[Sequence[Pair]], Any], pairs: Sequence[Pair], seconds: float) -> int:
    """Ask all of ``pairs`` again and again until the time is over; how many that were."""
    end, asked = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        answer(pairs)
        asked += len(pairs)
    return asked


def engine_rate(artifact: str, variant: str, pairs: Sequence[Pair], seconds: float) -> Dict[str, Any]:
    """Questions a second of Engine, and what it spends them on."""
    with Engine.for_many(artifact, variant=variant) as engine:
        engine.answer(pairs)
        began, cpu = time.perf_counter(), time.process_time()
        asked = repeated(engine.answer, pairs, seconds)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        started = time.perf_counter()
        examples = engine.encode(pairs)
        encoded = time.perf_counter()
        engine.outputs([row for example in examples for row in example.windows])
        inferred = time.perf_counter()
        list(engine.answer_encoded(examples))
        answered = time.perf_counter()
    count = len(pairs)
    return {
        "questions_per_s": asked / wall_s,
        "cpu_us_per_question": cpu_s / asked * 1e6,
        "encode_us": (encoded - started) / count * 1e6,
        "infer_us": (inferred - encoded) / count * 1e6,
        "infer_and_decode_us": (answered - inferred) / count * 1e6,
    }


def runner_rate(artifact: str, variant: str, pairs: Sequence[Pair], seconds: float) -> Dict[str, Any]:
    """The same of Runner."""
    with Runner(artifact, variant=variant) as runner:
        list(runner.map(pairs))
        with usage_of(runner) as usage:
            asked = repeated(lambda some: list(runner.map(some)), pairs, seconds)
    return {
        "questions_per_s": asked / usage.wall_s,
        "runner_cpu_us_per_question": usage.runner_cpu_s / asked * 1e6,
        "workers_cpu_us_per_question": usage.workers_cpu_s / asked * 1e6,
    }


def main(arguments: List[str]) -> None:
    """The command."""
    artifact, variant, data, way, seconds = arguments
    pairs = list(squad_pairs(Path(data)))
    rate = {"engine": engine_rate, "runner": runner_rate}[way]
    print(json.dumps(rate(artifact, variant, pairs, float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
