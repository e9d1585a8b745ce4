"""Artifacts that a tool compiles once and keeps in its work folder."""

import hashlib
import json
from pathlib import Path
from typing import Any, Sequence

from neuronbert import compile_checkpoint
from neuronbert.artifact.files import new_folder
from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.hardware.machine import environment
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert_tools.acceptance.bert_base import write_bert_base
from neuronbert_tools.console import print_message
from neuronbert_tools.server.asking import TASK

LAYERS = 12  # of BERT-base


def random_bert_base(work: Path) -> Path:
    """A checkpoint of BERT-base's sizes with random weights, in ``work``."""
    folder = work / "random-bert-base"
    if not folder.exists():
        with new_folder(folder) as unfinished:
            write_bert_base(unfinished, LAYERS)
    return folder


def compiled_once(
    source: str, work: Path, backends: Sequence[str], precisions: Sequence[str], **options: Any
) -> Artifact:
    """The artifact of these weights, options (as ``compile_checkpoint`` has them), libraries and CPU features."""
    here = environment()
    fingerprint = load_checkpoint(source, task=TASK).fingerprint
    made_from = [fingerprint, options, here["neuronbert"], here["libraries"], here["cpu_flags"]]
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    folder = work / f"{'-'.join(backends)}-{'-'.join(precisions)}-{digest}"
    if not folder.exists():
        print_message(f"compiling {source} for {', '.join(backends)} in {' and '.join(precisions)}: {folder}")
        compile_checkpoint(source, folder, task=TASK, backend=backends, precision=precisions, **options)
    return load_artifact(folder)
