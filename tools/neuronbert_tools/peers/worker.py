"""The child that holds one contender: requests come in and replies go out as lines of JSON (see children.py).

PYTHONPATH=tools python tools/neuronbert_tools/peers/worker.py
"""

import json
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, TextIO, Tuple

from neuronbert_tools.peers import load_peer_task
from neuronbert_tools.peers.base import Answer, Gold, Input, Job, Loaded

Reply = Dict[str, Any]  # JSON


class Worker:
    """The operations that children.py may ask for; each returns what goes into the reply."""

    def __init__(self) -> None:
        self.loaded: Optional[Loaded] = None
        self.answers: Any = None  # what the last run gave

    def make_model(self, task: str, name: str, folder: str, source: str, seed: int) -> Reply:
        load_peer_task(task).make_model(name, Path(folder), Path(source), seed)
        return {}

    def export(self, task: str, contender: str, model: str, folder: str, rows: List[Input]) -> Reply:
        """Make what the contender loads; under another name first, so that a half-made folder is never used."""
        export = load_peer_task(task).CONTENDERS[contender].export
        assert export is not None, "there is nothing to export"
        unfinished = Path(f"{folder}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        export.make(Path(model), unfinished, rows)
        unfinished.rename(folder)
        return {}

    def load(self, task: str, contender: str, model: str, prepared: str, threads: int) -> Reply:
        start = time.perf_counter()
        self.loaded = load_peer_task(task).CONTENDERS[contender].load(Job(Path(model), Path(prepared), threads))
        return {"load_s": time.perf_counter() - start, "facts": self.loaded.facts}

    def run(self, inputs: List[Input], mode: str) -> Reply:
        assert self.loaded is not None, "load first"
        start = time.perf_counter()
        self.answers = self.loaded.answer(inputs, mode)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak_mib": _peak_mib()}

    def last_answers(self, task: str) -> Reply:
        return {"answers": load_peer_task(task).plain(self.answers)}

    def count_tokens(self, task: str, model: str, inputs: List[Input]) -> Reply:
        """Tokens of every row of the workload, without padding (needs neuronbert's environment)."""
        return {"tokens": load_peer_task(task).count_tokens(Path(model), inputs)}

    def golds(self, task: str, data: str, count: int, model: str) -> Reply:
        """What is right for the inputs of a data file (needs neuronbert's environment)."""
        return {"golds": load_peer_task(task).golds(Path(data), count, Path(model))}

    def scores(self, task: str, golds: Optional[List[Gold]], answers: Dict[str, List[Answer]]) -> Reply:
        """The figure of every contender's answers (needs neuronbert's environment)."""
        return {"scores": load_peer_task(task).scores(golds, answers)}

    def gemm(self, threads: int, seconds: float) -> Reply:
        """The rates of plain matrix products, in 1e9 operations a second (needs torch)."""
        return {"int8": gemm_rates(threads, seconds, "int8"), "fp32": gemm_rates(threads, seconds, "fp32")}


# Rows, inner size and columns: BERT-base's weight matrices and a thousand tokens.
BASE_SHAPES = ((1024, 768, 768), (1024, 768, 3072), (1024, 3072, 768))


def gemm_rates(
    threads: int, seconds: float, kind: str, shapes: Sequence[Tuple[int, int, int]] = BASE_SHAPES
) -> Dict[str, float]:
    """Rate by shape "MxKxN", in 1e9 operations a second; a multiply-add is 2.

    int8 is torch._int_mm (int8 × int8 → int32, oneDNN on x86), fp32 is torch.mm.
    """
    import torch

    torch.set_num_threads(threads)
    rates = {}
    for rows, inner, columns in shapes:
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
    os._exit(0)  # infinity leaves threads behind that Python would wait for


if __name__ == "__main__":
    main()
