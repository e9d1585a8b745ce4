"""Records what the question-answering pipeline of transformers 4.57 answers, for test_parity.py.

    python -m venv .venv-golden && .venv-golden/bin/python -m pip install "transformers==4.57.*" torch numpy tokenizers
    .venv-golden/bin/python tools/make_golden

It needs its own environment: newer releases of transformers have no such pipeline. It asks the demo checkpoint, in
FP32, every question of XQuAD and the edge cases that golden_cases.py generates. The file holds inputs, keywords,
answers and versions; where the pipeline raised, the error's type and text.
"""

import gzip
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence

from neuronbert.hardware.untrusted import sha256_of
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert_tools.console import new_parser
from neuronbert_tools.golden_cases import Case, edge_cases
from neuronbert_tools.paths import DEMO, ROOT, XQUAD

OUTPUT = ROOT / "tests" / "data" / "golden" / "pipeline-4.57.json.gz"

NEEDED = "4.57."  # the last minor series of transformers that ran this pipeline unchanged; 5.3 removed it
FORMAT = 1


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEMO)
    parser.add_argument("--data", type=Path, default=XQUAD)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    if not has_the_pipeline():
        return 1
    pairs = [(question.question, question.context) for question in load_squad(options.data)]
    cases = [Case("xquad", *pair, {}) for pair in pairs] + edge_cases(pairs, options.seed)
    records = record(load_pipeline(options.checkpoint, options.threads), cases)
    write(options.output, document(options.checkpoint, options.seed, cases, records))
    raised = sum("error" in made for made in records)
    print(f"{options.output}: {len(cases)} cases, {raised} raised, {options.output.stat().st_size} bytes")
    return 0


def has_the_pipeline() -> bool:
    """Whether this environment can record; what to install on stderr if it cannot."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        problem = str(error)
    else:
        if transformers.__version__.startswith(NEEDED):
            return True
        problem = f"this environment has transformers {transformers.__version__}"
    print(f"error: recording needs transformers {NEEDED}* and torch: {problem}", file=sys.stderr)
    print(f'  try: {sys.executable} -m pip install "transformers=={NEEDED}*" torch numpy', file=sys.stderr)
    return False


def load_pipeline(checkpoint: Path, threads: int) -> Any:
    import torch
    import transformers

    torch.set_num_threads(threads)
    return transformers.pipeline("question-answering", model=str(checkpoint), dtype=torch.float32, device="cpu")


def record(pipeline: Any, cases: List[Case]) -> List[Dict[str, Any]]:
    """What the pipeline gave for each case: ``answer`` (dictionary or list) or ``error``."""
    records: List[Dict[str, Any]] = []
    started = time.monotonic()
    for number, case in enumerate(cases, 1):
        try:
            records.append({"answer": rounded(pipeline(question=case.question, context=case.context, **case.keywords))})
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic in Rust is no Exception
            records.append({"error": {"type": type(error).__name__, "text": str(error)[:300]}})
        if number % 50 == 0 or number == len(cases):
            left_s = (time.monotonic() - started) / number * (len(cases) - number)
            print(f"{number} of {len(cases)}, {left_s:.0f} s left", file=sys.stderr)
    return records


def rounded(answer: Any) -> Any:
    """The answer with nine digits of its score, which is all that a float32 holds."""
    if isinstance(answer, list):
        return [rounded(inner) for inner in answer]
    return {**answer, "score": float(f"{answer['score']:.9g}")}


def document(checkpoint: Path, seed: int, cases: List[Case], records: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The golden file: every context once, in ``contexts``; a case names its context by index."""
    import numpy
    import tokenizers
    import torch
    import transformers

    versions = {module.__name__: module.__version__ for module in (transformers, torch, tokenizers, numpy)}
    contexts = {context: index for index, context in enumerate(dict.fromkeys(case.context for case in cases))}
    return {
        "format": FORMAT,
        "source": "XQuAD English (CC BY-SA 4.0) and cases generated from it; see README.md beside this file",
        "versions": {**versions, "python": platform.python_version()},
        "checkpoint": {"name": checkpoint.name, "weights_sha256": sha256_of(checkpoint / "model.safetensors")},
        "precision": "fp32",
        "seed": seed,
        "contexts": list(contexts),
        "cases": [
            {
                "kind": case.kind,
                "question": case.question,
                "context": contexts[case.context],
                "keywords": case.keywords,
                **record,
            }
            for case, record in zip(cases, records)
        ],
    }


def write(path: Path, golden: Dict[str, Any]) -> None:
    # ASCII only: half a surrogate pair has no UTF-8. No time stamp: the same answers give the same bytes.
    text = json.dumps(golden, ensure_ascii=True, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode("ascii"), compresslevel=9, mtime=0))
