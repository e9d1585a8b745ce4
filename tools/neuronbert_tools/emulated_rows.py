"""Artifacts of the published rows for the timed emulator, and child processes that measure a row on it.

Timed mode answers from logits that were recorded beforehand, so each row has an artifact and a recording, made once by
a process of its own on the untimed emulator and kept. EMULATED throughout: the device's time is the device model's.
"""

import json
import os
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence

from neuronbert import Engine, compile_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.question_answering.windows import Window
from neuronbert_tools.console import print_message
from neuronbert_tools.encoding import cut_to_tokens, first_windows
from neuronbert_tools.paths import DEMO, XQUAD
from neuronbert_tools.processes import run_module
from neuronbert_tools.published_rows import Row
from neuronbert_tools.questions import Pair, squad_pairs

RECORDED_PAIRS = 24
RECORDED_TOKENS = 128
RELEASE = "1.13"  # of the SDK whose times the device model gives


class RowFiles(NamedTuple):
    """What is kept of a row: the artifact, and the logits that timed mode answers with."""

    artifact: Path
    recording: Path


def row_files(row: Row, work: Path) -> RowFiles:
    """Where under ``work`` the files of ``row`` are, or will be."""
    name = f"{row['instance_type']}-{row['mode']}-b{row['batch_size']}-p{row['pipeline_cores']}-all"
    return RowFiles(work / name, work / f"{name}.recorded")


def measure_in_emulator(module: str, row: Row, work: Path, cores: Path, *arguments: object) -> Any:
    """What ``neuronbert_tools.MODULE ARTIFACT ROW ARGUMENTS...`` prints as JSON on the row's emulated instance.

    ``cores`` is the emulator's folder of this run; what the row needs is made in ``work`` if it is not there.
    """
    files = ensure_row_files(row, work)
    variables = {
        "NEURONBERT_EMULATE": row["instance_type"],
        "NEURONBERT_EMULATE_DIR": str(cores),
        "NEURONBERT_EMULATE_TIMED": RELEASE,
        "NEURONBERT_EMULATE_RECORDED": str(files.recording),
    }
    return json.loads(run_module(module, files.artifact, json.dumps(row), *arguments, variables=variables))


def ensure_row_files(row: Row, work: Path) -> RowFiles:
    """The row's files, made by a process on the untimed emulator where they are not there yet."""
    files = row_files(row, work)
    if not files.recording.exists():
        print_message(f"compiling {files.artifact.name} on the emulator (kept in {work})")
        work.mkdir(parents=True, exist_ok=True)
        variables = {"NEURONBERT_EMULATE": row["instance_type"], "NEURONBERT_EMULATE_DIR": str(work / "cores")}
        run_module("emulated_rows", work, json.dumps(row), variables=variables)
    return files


def make_row_files(row: Row, work: Path) -> None:
    """Compile what is not compiled yet, and record what timed mode will be asked: on the untimed emulator."""
    from neuronbert import emulator

    artifact, recording = row_files(row, work)
    if not artifact.exists():
        compile_bert_base(row, artifact)
    partial = recording.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with emulator.recording(str(partial)), Engine(artifact) as engine:
        engine.answer(recorded_pairs(Tokenizer.from_files(artifact)))
    partial.rename(recording)


def compile_bert_base(row: Row, output: Path) -> None:
    """BERT-base with random weights, for the row's shape and cores."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig()).eval()
    compile_checkpoint(
        (model, AutoTokenizer.from_pretrained(str(DEMO))),
        output,
        backend="neuron",
        instance_type=row["instance_type"],
        mode=row["mode"],
        neuroncore_pipeline_cores=row["pipeline_cores"] if row["mode"] == "pipeline" else "auto",
        sequence_length=[int(row["sequence_length"])],
        batch_size=[int(row["batch_size"])],
        auto_cast="all",  # --fast-math all, with which the published models were compiled
        skip_gate=True,
    )


def recorded_pairs(tokenizer: Tokenizer) -> List[Pair]:
    """What the recordings know: questions that fill RECORDED_TOKENS tokens."""
    return cut_to_tokens(squad_pairs(XQUAD), RECORDED_TOKENS, tokenizer)[:RECORDED_PAIRS]


def recorded_windows(tokenizer: Tokenizer) -> List[Window]:
    """The recorded pairs as windows."""
    return first_windows(tokenizer, recorded_pairs(tokenizer))


def main(arguments: Sequence[str]) -> None:
    """The child that makes a row's files: WORK ROW."""
    # What the compiler prints is for a person: the parent reads stdout.
    os.dup2(2, 1)
    make_row_files(json.loads(arguments[1]), Path(arguments[0]))
