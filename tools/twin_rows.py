"""The published rows on the timed twin, for measure_runner and measure_simulation: what is compiled, and the asking.

Timed mode answers from logits that were recorded beforehand, so each row has an artifact and a recording, made once by
a process of its own on the untimed twin and kept. EMULATED throughout: the device's time is the device model's.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from neuronbert import compile_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
XQUAD = ROOT / "tests" / "data" / "xquad" / "xquad-en.json"
Pair = Tuple[str, str]
Row = Dict[str, str]  # of published_performance.csv


def say(text: str) -> None:
    """For a person; stdout is for the document."""
    print(text, file=sys.stderr, flush=True)


def default_work() -> Path:
    """Where artifacts and recordings are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "neuronbert" / "measure_runner"


def blog_rows() -> List[Row]:
    """The eight rows of AWS's blog post, in its order."""
    from neuronbert.hardware.device_model import PUBLISHED_PATH

    with open(PUBLISHED_PATH, encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if "blog" in row["source"]]


def pairs_of(path: Path, tokens: Optional[int] = None, tokenizer: Optional[Tokenizer] = None) -> List[Pair]:
    """XQuAD's questions with their contexts, cut to ``tokens`` tokens together where that is asked for."""
    document = json.loads(path.read_text(encoding="utf-8"))
    paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
    pairs = [(qa["question"], paragraph["context"]) for paragraph in paragraphs for qa in paragraph["qas"]]
    if tokens is None or tokenizer is None:
        return pairs
    cut = []
    for question, context in pairs:
        room = tokens - 3 - len(tokenizer.encode([question])[0].ids)
        offsets = tokenizer.encode([context])[0].offsets
        if len(offsets) >= room:
            cut.append((question, context[: offsets[room - 1][1]]))
    return cut


def twin_pairs(tokenizer: Tokenizer) -> List[Pair]:
    """What the recordings know: questions that fill 128 tokens."""
    return pairs_of(XQUAD, 128, tokenizer)[:24]


def ask_in_twin(script: str, row: Row, work: Path, cores: Path, more: Sequence[str]) -> Any:
    """``script --row ARTIFACT ROW MORE...`` on the timed twin of the row's instance; what it prints as JSON."""
    artifact, recorded = twin_artifact(script, row, work)
    variables = {
        "NEURONBERT_EMULATE": row["instance_type"],
        "NEURONBERT_EMULATE_DIR": str(cores),
        "NEURONBERT_EMULATE_TIMED": "1.13",
        "NEURONBERT_EMULATE_RECORDED": str(recorded),
    }
    command = [sys.executable, script, "--row", str(artifact), json.dumps(row), *more]
    done = subprocess.run(command, check=True, env={**os.environ, **variables}, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def twin_artifact(script: str, row: Row, work: Path) -> Tuple[Path, Path]:
    """BERT-base with random weights compiled on the twin for the row's shape, and recorded logits of a few inputs."""
    name = f"{row['instance_type']}-{row['mode']}-b{row['batch_size']}-p{row['pipeline_cores']}"
    artifact, recorded = work / name, work / f"{name}.recorded"
    if not recorded.exists():
        say(f"compiling {name} on the twin (kept in {work})")
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, script, "--prepare", name, str(work), json.dumps(row)]
        variables = {"NEURONBERT_EMULATE": row["instance_type"], "NEURONBERT_EMULATE_DIR": str(work / "cores")}
        subprocess.run(command, check=True, env={**os.environ, **variables})
    return artifact, recorded


def prepare(name: str, work: Path, row: Row) -> None:
    """In a process of its own, on the untimed twin: compile, and record what timed mode will be asked."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering

    from neuronbert import Engine, emulator

    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig()).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(ROOT / "neuronbert" / "checkpoint" / "demo"))
    artifact = work / name
    if not artifact.exists():
        compile_checkpoint(
            (model, tokenizer),
            artifact,
            backend="neuron",
            instance_type=row["instance_type"],
            mode=row["mode"],
            neuroncore_pipeline_cores=row["pipeline_cores"] if row["mode"] == "pipeline" else "auto",
            sequence_length=[int(row["sequence_length"])],
            batch_size=[int(row["batch_size"])],
            skip_gate=True,
        )
    partial = work / f"{name}.partial"
    partial.unlink(missing_ok=True)
    with emulator.recording(str(partial)), Engine(artifact) as engine:
        engine.answer(twin_pairs(Tokenizer.from_files(artifact)))
    partial.rename(work / f"{name}.recorded")


def answer_subcommand(arguments: Sequence[str]) -> bool:
    """Whether the script was started to prepare a row, which has then been done."""
    if list(arguments[:1]) != ["--prepare"]:
        return False
    prepare(arguments[1], Path(arguments[2]), json.loads(arguments[3]))
    return True
