"""Measures an artifact's accuracy on a data file, alone or against another artifact or a checkpoint in FP32.

What is asked, how a result is read and what is reported are the task's (tasks.base.TaskEvaluation).
"""

import os
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from neuronbert.artifact.manifest import Artifact, PathLike, artifact_of, is_artifact, task_of, verified_again
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.artifact.variants import choose_variants
from neuronbert.backends.outputs import Outputs
from neuronbert.backends.reference import ROW_BY_ROW, ReferenceSession, one_thread_each
from neuronbert.checkpoint.config import read_config
from neuronbert.checkpoint.families import Config
from neuronbert.checkpoint.loading import Checkpoint, Source, needed_libraries
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import RowsDone, in_inputs, infer_concurrently
from neuronbert.engine.engine import Engine
from neuronbert.engine.rounds import Rounds
from neuronbert.errors import InputError, UsageError, refuse_no_path
from neuronbert.hardware.libraries import require_libraries
from neuronbert.hardware.machine import environment
from neuronbert.tasks import load_task
from neuronbert.tasks.base import (
    DecodeOptions,
    EncodeOptions,
    Report,
    Row,
    Task,
    TaskEvaluation,
    option_kinds,
    options_of,
)
from neuronbert.tasks.checkpoints import load_checkpoint

Progress = Callable[[int, int], None]  # inputs answered so far, inputs in all

# Small enough for a progress bar that moves, large enough for batches of equal lengths.
CHUNK_INPUTS = 128


class Reader(NamedTuple):
    """Something that reads rows: an engine, or a checkpoint in FP32."""

    name: str
    task: Task
    tokenizer: Tokenizer
    outputs: Callable[[Sequence[Row], RowsDone], List[Outputs]]


def evaluate_artifact(
    artifact: Union[Artifact, PathLike],
    data: PathLike,
    *,
    variant: Optional[str] = None,
    against: Union[Artifact, Source, None] = None,
    against_variant: Optional[str] = None,
    limit: Optional[int] = None,
    threads: Optional[int] = None,
    trusted_key: TrustedKey = None,
    revision: Optional[str] = None,
    token: Optional[str] = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> Report:
    """Answer the data file ``data`` (its first ``limit`` inputs) and score the answers; the report of the task.

    Which format ``data`` has and which figures are reported is up to the artifact's task (its ``evaluation`` says).
    ``against`` is another artifact's folder or a checkpoint (folder, hub id, ``"demo"``, (model, tokenizer)),
    which is run in FP32 by torch. An encoder pools as its own files say; where they do not, and where it is what the
    artifact was compiled from, as the artifact. The hub options are for it, and ``trusted_key`` is for both
    artifacts, as for Engine. ``options`` are the keywords of the task's options.

    Raises InputError for a file or an input that cannot be read, ArtifactError, CheckpointError and MissingLibrary.
    """
    refuse_no_path("data", data)
    # Its checksums are verified after the options and the file: a wrong name must not cost the time that takes.
    task = load_task(task_of(artifact, trusted_key))
    window_options, decode_options = options_of(option_kinds(task), options)
    evaluation = task.evaluation(data, limit, window_options, decode_options)
    loaded = artifact_of(artifact, trusted_key)
    asked = len(evaluation.inputs)
    total = asked if against is None else 2 * asked
    hub: Dict[str, Any] = {
        "revision": revision,
        "token": token,
        "local_files_only": local_files_only,
        "allow_pickle": allow_pickle,
    }
    # Before any question is answered: a wrong name must not cost the time that takes.
    compared_source = None if against is None else _find(against, against_variant, loaded, task, hub, trusted_key)
    with Engine.for_many(loaded, variant=variant, threads=threads) as engine:
        encode_options = evaluation.options_for(engine.tokenizer)
        others = None if compared_source is None else evaluation.for_other(_config_of(compared_source), encode_options)
        progress(0, total)
        started = time.perf_counter()
        read = _read(
            _engine_reader(engine), evaluation, encode_options, decode_options, lambda done: progress(done, total)
        )
        seconds = time.perf_counter() - started
    report = evaluation.report(
        read,
        artifact=str(engine.artifact.folder),
        variant=engine.name,
        seconds=seconds,
        environment=environment(),
    )
    if compared_source is None or others is None:
        return report
    with ExitStack() as stack:
        reader = _open(compared_source, task, against_variant, threads, stack)
        read_of_other = _read(reader, *others, decode_options, lambda done: progress(asked + done, total))
    return evaluation.compared(report, read, reader.name, read_of_other)


def _find(
    source: Union[Artifact, Source],
    variant: Optional[str],
    compared: Artifact,
    task: Task,
    hub: Mapping[str, Any],
    trusted_key: TrustedKey,
) -> Union[Artifact, Checkpoint]:
    """What is compared with, before it is loaded; UsageError where it is of another task."""
    if isinstance(source, Artifact) or (isinstance(source, (str, os.PathLike)) and is_artifact(source)):
        source = artifact_of(source, trusted_key)
        choose_variants(source, variant)
        _refuse_other_task(source.task, task)
        return source
    if variant is not None:
        raise UsageError(f"a checkpoint has no variants, such as {variant}", hint="against an artifact, or without it")
    require_libraries(*needed_libraries(source))
    checkpoint = load_checkpoint(source, task=task.NAME, **hub)
    pooling = compared.manifest.get("pooling")
    # What was compiled with a pooling of the user's choice is compared with its own source under the same one.
    if pooling != checkpoint.pooling and (not checkpoint.says_pooling or _is_source_of(compared, checkpoint)):
        return load_checkpoint(source, task=task.NAME, pooling=pooling, **hub)
    return checkpoint


def _is_source_of(artifact: Artifact, checkpoint: Checkpoint) -> bool:
    compiled = artifact.manifest["checkpoint"]
    same_name = os.path.realpath(str(compiled["source"])) == os.path.realpath(checkpoint.source)
    return same_name and bool(compiled["fingerprint"] == checkpoint.fingerprint)


def _config_of(source: Union[Artifact, Checkpoint]) -> Config:
    return (read_config(source.folder) or {}) if isinstance(source, Artifact) else source.config


def _refuse_other_task(name: str, task: Task) -> None:
    if name != task.NAME:
        raise UsageError(f"{name} and {task.NAME} cannot be compared", hint=f"--against one for {task.NAME}")


def _open(
    source: Union[Artifact, Checkpoint], task: Task, variant: Optional[str], threads: Optional[int], stack: ExitStack
) -> Reader:
    if isinstance(source, Artifact):
        # The first artifact may have answered for hours.
        engine = Engine.for_many(verified_again(source), variant=variant, threads=threads)
        return _engine_reader(stack.enter_context(engine))
    tokenizer = source.tokenizer()
    specs = task.outputs(source.config)
    session = ReferenceSession(source.torch_model(), specs, threads=threads)
    stack.callback(session.close)

    def outputs(rows: Sequence[Row], rows_done: RowsDone) -> List[Outputs]:
        with one_thread_each():
            return infer_concurrently(session, rows, specs, ROW_BY_ROW, tokenizer.pad_id, rows_done)

    return Reader(f"{source.source} in FP32", task, tokenizer, outputs)


def _engine_reader(engine: Engine) -> Reader:
    return Reader(f"{engine.artifact.folder} ({engine.name})", engine.task, engine.tokenizer, engine.outputs)


def _read(
    reader: Reader,
    evaluation: TaskEvaluation,
    options: EncodeOptions,
    decode_options: DecodeOptions,
    progress: Callable[[int], None],
) -> List[Any]:
    """What is kept of the result of every input, as ``evaluation.read`` gives it."""
    inputs = evaluation.inputs
    read: List[Any] = []
    for first in range(0, len(inputs), CHUNK_INPUTS):
        chunk = inputs[first : first + CHUNK_INPUTS]
        try:
            examples = reader.task.encode(reader.tokenizer, chunk, options)
        except InputError:
            evaluation.refuse(reader.tokenizer, first, len(chunk), options)
            raise
        rounds = Rounds(reader.task, examples, [decode_options] * len(examples))
        rounds.read_all(reader.outputs, in_inputs(progress, first, len(chunk), rounds.total_rows))
        read += [evaluation.read(*rounds.read(number)) for number in range(len(examples))]
    return read
