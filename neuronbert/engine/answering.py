"""What a task's verb does: load an artifact (engine.py), answer an input or a file of them, and close it."""

from typing import Any, BinaryIO, Callable, List, NamedTuple, Optional, Union

from neuronbert.artifact.manifest import Artifact, PathLike, task_of
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.engine.engine import Engine
from neuronbert.engine.lines import Progress, answer_lines
from neuronbert.errors import ArtifactError, quoted
from neuronbert.tasks import load_options
from neuronbert.tasks.base import Columns, Document, option_kinds, options_of
from neuronbert.tasks.line_formats import JSON_LINES, LineFormat
from neuronbert.tasks.lines import SkippedLine


class AnsweredInput(NamedTuple):
    """A result for JSON, and as text for a person."""

    document: Document
    text: str


def answer_input(
    artifact: PathLike,
    *inputs: Any,
    task: Optional[str] = None,
    variant: Optional[str] = None,
    threads: Optional[int] = None,
    trusted_key: TrustedKey = None,
    **options: Any,
) -> AnsweredInput:
    """The result of one input, given as the texts that the artifact's task takes and the keywords of its options.

    ``task`` is the one that it is meant for: ArtifactError where the artifact is for another.
    """
    refuse_other_task(artifact, task, trusted_key)
    with Engine(artifact, variant=variant, threads=threads, streams=1, trusted_key=trusted_key) as engine:
        own = engine.task
        task_input, keywords = own.call_input(*inputs, **options)
        encode_options, decode_options = options_of(option_kinds(own), keywords)
        result = engine.answer([task_input], encode_options, decode_options)[0]
    return AnsweredInput(own.json_result(result, decode_options), own.result_text(result))


def answer_file(
    artifact: PathLike,
    file: BinaryIO,
    *,
    on_result: Callable[[Document], None],
    on_columns: Callable[[Columns], None] = lambda columns: None,
    line_format: LineFormat = JSON_LINES,
    task: Optional[str] = None,
    on_error: str = "fail",
    progress: Progress = lambda done, total: None,
    variant: Optional[str] = None,
    threads: Optional[int] = None,
    trusted_key: TrustedKey = None,
    **options: Any,
) -> List[SkippedLine]:
    """Give ``on_result`` the result of each line of ``file``, in order; return the lines that were skipped.

    Every line is read before any is answered: InputError for the first broken one, unless ``on_error`` is "skip".
    ``line_format`` is the file's. ``on_columns`` is called before the first result, with all the keys that results may
    have. ``task`` is as for ``answer_input``.
    """
    refuse_other_task(artifact, task, trusted_key)
    with Engine.for_many(artifact, variant=variant, threads=threads, trusted_key=trusted_key) as engine:
        encode_options, decode_options = options_of(option_kinds(engine.task), options)
        results, skipped = answer_lines(engine, file, encode_options, decode_options, on_error, progress, line_format)
        on_columns(engine.task.columns(engine.tokenizer.config, decode_options))
        for result in results:
            on_result(result)
    return skipped


def refuse_other_task(artifact: Union[Artifact, PathLike], task: Optional[str], trusted_key: TrustedKey = None) -> None:
    """ArtifactError, with the command that fits, unless the artifact is for the task ``task`` (None: for any)."""
    own = task_of(artifact, trusted_key)
    folder = artifact.folder if isinstance(artifact, Artifact) else artifact
    if task in (None, own):
        return
    verbs = [f"neuronbert {verb.name} {quoted(folder)} {verb.example}" for verb in load_options(own).VERBS]
    raise ArtifactError(
        f"{folder} is for {own}, not for {task}",
        hint=" or ".join(verbs) or f"neuronbert run {quoted(folder)} --input FILE.jsonl --output OUT.jsonl",
    )
