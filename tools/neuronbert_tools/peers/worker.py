"""The child that holds one contender: requests come in and replies go out as lines of JSON (see children.py).

PYTHONPATH=tools python tools/neuronbert_tools/peers/worker.py
"""

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, TextIO

from neuronbert_tools.peers import contenders
from neuronbert_tools.peers.contenders import CONTENDERS, Job, Loaded
from neuronbert_tools.questions import Pair, squad_pairs

Reply = Dict[str, Any]  # JSON


class Worker:
    """The operations that children.py may ask for; each returns what goes into the reply."""

    def __init__(self) -> None:
        self.loaded: Optional[Loaded] = None

    def make_random_bert(self, folder: str, tokenizer_from: str, seed: int) -> Reply:
        contenders.make_random_bert(Path(folder), Path(tokenizer_from), seed)
        return {}

    def copy_as_float32(self, folder: str, source: str) -> Reply:
        contenders.copy_as_float32(Path(folder), Path(source))
        return {}

    def load(self, contender: str, model: str, prepared: str, calibration: str, threads: int) -> Reply:
        start = time.perf_counter()
        job = Job(Path(model), Path(prepared), Path(calibration), threads)
        self.loaded = CONTENDERS[contender].load(job)
        return {"load_s": time.perf_counter() - start, "facts": self.loaded.facts}

    def run(self, data: str, questions: int, mode: str) -> Reply:
        assert self.loaded is not None, "load first"
        pairs = _first(data, questions)
        start = time.perf_counter()
        answers = self.loaded.answer(pairs, mode)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "answers": answers, "peak_mib": _peak_mib()}

    def count_tokens(self, data: str, questions: int, tokenizer_from: str) -> Reply:
        """Tokens of every window of the workload, without padding (needs neuronbert's environment)."""
        from neuronbert.checkpoint.tokenizer import Tokenizer
        from neuronbert.tasks.question_answering.options import WindowOptions
        from neuronbert.tasks.question_answering.windows import encode_examples

        examples = encode_examples(Tokenizer.from_files(Path(tokenizer_from)), _first(data, questions), WindowOptions())
        return {"tokens": [len(window.input_ids) for example in examples for window in example.windows]}

    def score(self, data: str, questions: int, answers: List[str]) -> Reply:
        """F1 in percent of a contender's answers (needs neuronbert's environment)."""
        from neuronbert.tasks.question_answering.metrics import mean_f1
        from neuronbert.tasks.question_answering.squad import load_squad

        golds = [question.answers for question in load_squad(Path(data))[:questions]]
        return {"f1": 100 * mean_f1(answers, golds)}

    def gemm(self, threads: int, seconds: float) -> Reply:
        """The rates of plain matrix products, in 1e9 operations a second (needs torch)."""
        return {"int8": gemm_rates(threads, seconds, "int8"), "fp32": gemm_rates(threads, seconds, "fp32")}


def gemm_rates(threads: int, seconds: float, kind: str) -> Dict[str, float]:
    """Rate by shape "MxKxN": BERT-base's weight matrices and a thousand tokens; a multiply-add is 2 operations.

    int8 is torch._int_mm (int8 × int8 → int32, oneDNN on x86), fp32 is torch.mm.
    """
    import torch

    torch.set_num_threads(threads)
    rates = {}
    for rows, inner, columns in ((1024, 768, 768), (1024, 768, 3072), (1024, 3072, 768)):
        if kind == "int8":
            left = torch.randint(-128, 127, (rows, inner), dtype=torch.int8)
            right = torch.randint(-128, 127, (inner, columns), dtype=torch.int8)
            multiply = torch._int_mm
        else:
            left, right, multiply = torch.rand(rows, inner), torch.rand(inner, columns), torch.mm
        per_second = _calls_per_second(lambda: multiply(left, right), seconds)  # noqa: B023 (called in this round)
        rates[f"{rows}x{inner}x{columns}"] = per_second * 2 * rows * inner * columns / 1e9
    return rates


def _calls_per_second(call: Callable[[], object], seconds: float) -> float:
    for _ in range(3):
        call()
    calls, start, elapsed = 0, time.perf_counter(), 0.0
    while elapsed < seconds:
        call()
        calls += 1
        elapsed = time.perf_counter() - start
    return calls / elapsed


def _first(data: str, questions: int) -> List[Pair]:
    return [pair for pair, _ in zip(squad_pairs(Path(data)), range(questions))]


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more."""
    worker = Worker()
    for line in requests:
        request: Mapping[str, Any] = json.loads(line)
        try:
            reply = getattr(worker, request["do"])(**request["with"])
        except Exception as error:  # the parent reports it with the contender's name
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    # Libraries print to stdout while they load: the replies keep the real one, and the rest goes to the log.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
