"""A process that answers a data file's questions from text, many times over; its rates as one JSON document.

    python -m neuronbert_tools.gpu.text_rate ARTIFACT VARIANT DATA WAY SECONDS [WORKERS]

WAY is engine (one process), runner (tokenising and answers in this process, the GPU in another) or run (a file to a
file, text and all in so many workers; about as long as the others, at 10,000 questions a second).
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from neuronbert import Runner, run_job
from neuronbert.engine.engine import Engine
from neuronbert.tasks.question_answering.lines import question_line
from neuronbert_tools.measurements.usage import usage_of
from neuronbert_tools.questions import Pair, squad_pairs

RUN_QUESTIONS_PER_S = 10_000


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
        engine.tokenizer.recent.resize(0)  # every pass costs what the first does
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
        runner.tokenizer.recent.resize(0)
        list(runner.map(pairs))
        with usage_of(runner) as usage:
            asked = repeated(lambda some: list(runner.map(some)), pairs, seconds)
    return {
        "questions_per_s": asked / usage.wall_s,
        "runner_cpu_us_per_question": usage.runner_cpu_s / asked * 1e6,
        "workers_cpu_us_per_question": usage.workers_cpu_s / asked * 1e6,
    }


def run_rate(artifact: str, variant: str, pairs: Sequence[Pair], seconds: float, workers: int) -> Dict[str, Any]:
    """The same of ``neuronbert run``, from its workers being loaded to the last line."""
    loaded: List[float] = []

    def progress(done: int, total: Any) -> None:
        if not loaded:
            loaded.append(time.process_time())

    lines = "".join(question_line(question, context) + "\n" for question, context in pairs)
    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder, "questions.jsonl")
        questions.write_text(lines * max(1, int(seconds * RUN_QUESTIONS_PER_S / len(pairs))), encoding="utf-8")
        answers = Path(folder, "answers.jsonl")
        report = run_job(artifact, questions, answers, variant=variant, workers=workers, progress=progress)
    own_s, used = time.process_time() - loaded[0], resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "workers": workers,
        "questions": report.answered,
        "questions_per_s": report.inputs_per_s,
        "runner_cpu_us_per_question": own_s / report.answered * 1e6,
        "workers_cpu_s_with_loading": used.ru_utime + used.ru_stime,
    }


def main(arguments: List[str]) -> None:
    """The command."""
    artifact, variant, data, way, seconds, *workers = arguments
    pairs = list(squad_pairs(Path(data)))
    if way == "run":
        found = run_rate(artifact, variant, pairs, float(seconds), int(workers[0]))
    else:
        rate = {"engine": engine_rate, "runner": runner_rate}[way]
        found = rate(artifact, variant, pairs, float(seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
