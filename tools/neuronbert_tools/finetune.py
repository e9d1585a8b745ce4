"""Makes a question-answering checkpoint or a classifier from a base checkpoint and your data.

    python tools/finetune.py --base bert-base-uncased --data train-v1.1.json --output my-reader
    python tools/finetune.py --base bert-base-uncased --data train.csv --output my-classifier
    python tools/finetune.py --base my-reader --layers 4 --distil my-reader --data train-v1.1.json --output small-reader

Question answering is learnt from SQuAD-format .json files, text classification from .csv, .tsv and .jsonl files with
the columns text, label (and text_pair). The base is a BERT, DistilBERT, RoBERTa or ELECTRA folder or hub id; a head
for the task that fits the data is trained on, else a new one is drawn from the seed. Progress goes to OUTPUT.training/
and survives kill -9: the same command continues where the last state was written and ends with the same weights (on a
CPU to the last bit). When all steps are done the checkpoint is read back and checked, and only then renamed to OUTPUT.
"""

import os
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import click

from neuronbert.artifact.files import output_errors
from neuronbert.checkpoint.loading import BaseCheckpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.checkpoint.weights import fingerprint
from neuronbert.errors import NeuronBertError, UsageError
from neuronbert.hardware.untrusted import sha256_of
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert_tools.console import print_message
from neuronbert_tools.finetuning import question_answering, text_classification
from neuronbert_tools.finetuning.distillation import Teacher, with_layers
from neuronbert_tools.finetuning.model import build_model
from neuronbert_tools.finetuning.narrowing import narrowed, refuse_columns
from neuronbert_tools.finetuning.options import TrainingOptions, choose_device, choose_precision
from neuronbert_tools.finetuning.progress import Progress
from neuronbert_tools.finetuning.question_answering import QuestionAnsweringOptions
from neuronbert_tools.finetuning.result import write_checkpoint, write_readme
from neuronbert_tools.finetuning.run import Run
from neuronbert_tools.finetuning.task import TrainedTask
from neuronbert_tools.finetuning.text_classification import PROBLEM_TYPES, ClassificationOptions
from neuronbert_tools.finetuning.trainer import Trainer

EXIT_INTERRUPTED = 130
MODULES: List[TrainedTask] = [question_answering, text_classification]
TASKS: Dict[str, TrainedTask] = {module.HEAD.task: module for module in MODULES}


def finetune(
    task: str,
    base: str,
    data: Sequence[Path],
    output: Path,
    options: TrainingOptions,
    *,
    device: str = "auto",
    distil: Optional[str] = None,
    checkpoint_every: int = 500,
    dtype: str = "float32",
    attribution: Sequence[str] = (),
    **hub: Any,
) -> None:
    """Train ``base`` for ``task`` on the files ``data`` into the new folder ``output``, or go on with a run cut off.

    ``options`` is an instance of the task's own class. ``distil`` is a checkpoint for the task, which is imitated.
    """
    module = TASKS[task]
    checkpoint = module.read_base(base, **hub)
    tokenizer = Tokenizer.from_bytes(
        checkpoint.tokenizer["tokenizer.json"], checkpoint.tokenizer["tokenizer_config.json"], checkpoint.config
    )
    if options.layers is not None:
        checkpoint = with_layers(checkpoint, options.layers)
    if options.feed_forward is not None:
        refuse_columns(checkpoint, options.feed_forward)
    device = choose_device(device)
    teacher = None if distil is None else Teacher(distil, module.HEAD, tokenizer, device, **hub)
    options = replace(options, precision=choose_precision(options.precision, device))
    identity = identify(task, checkpoint, data, options, teacher)
    run = Run(output, identity)
    run.open()
    with run.lock():
        lessons = module.read_lessons(data, checkpoint, tokenizer, options)
        if teacher is not None:
            teacher.refuse_other_labels(lessons)
        model = build_model(lessons.base, module.HEAD, options)
        resumes = run.state_path.exists()
        if options.feed_forward is not None:
            model, lessons = narrowed(model, lessons, options.feed_forward, tokenizer.pad_id, fitted=not resumes)
        trainer = Trainer(model, lessons, tokenizer.pad_id, options, device, teacher)
        if resumes:
            trainer.restore(run.state_path)
            print_message(f"resuming at step {trainer.step} of {trainer.steps}")
        print_message(f"{len(lessons.items)} rows, {trainer.steps} steps on {trainer.device}, {options.precision}")
        progress = Progress(trainer.steps, trainer.step, trainer.steps_per_epoch)
        trainer.train(run, checkpoint_every, progress)
        finish(run, trainer, identity, dtype, attribution)
    print(output)


def identify(
    task: str, base: BaseCheckpoint, paths: Sequence[Path], options: TrainingOptions, teacher: Optional[Teacher] = None
) -> Dict[str, Any]:
    """What two commands must share to be the same run: task, weights, teacher, data and options."""
    data = [[path.name, sha256_of(path)] for path in paths]
    return {
        "task": task,
        "base": base.source,
        "revision": base.revision,
        "base_fingerprint": fingerprint(base.tensors),
        "teacher_fingerprint": None if teacher is None else teacher.fingerprint,
        "data": data,
        "options": asdict(options),
    }


def finish(run: Run, trainer: Trainer, identity: Dict[str, Any], dtype: str, attribution: Sequence[str]) -> None:
    """Write the checkpoint beside its place, read it back, move it there, and clear the run away."""
    folder = run.folder / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    with output_errors(folder):
        folder.mkdir()
        write_checkpoint(folder, trainer.lessons.base, TASKS[identity["task"]].HEAD, trainer.model, dtype)
        write_readme(folder, run.output.name, identity, trainer.losses, attribution)
    load_checkpoint(folder, task=identity["task"])
    os.replace(folder, run.output)
    shutil.rmtree(run.folder)


# ---------------------------------------------------------------------------- the command line


def task_of(data: Sequence[Path], named: Optional[str] = None) -> str:
    """The task that is ``named``, or the one that all of the data files are for by their suffixes; else UsageError."""
    suffixes = [path.suffix.lower() for path in data]
    fitting = [name for name, module in TASKS.items() if set(suffixes) <= set(module.SUFFIXES)]
    if named is None and not fitting:
        kinds = "; ".join(f"{', '.join(module.SUFFIXES)}: {name}" for name, module in TASKS.items())
        raise UsageError(
            f"the names of the data files do not tell the task: {', '.join(path.name for path in data)}",
            hint=f"--task {' or --task '.join(TASKS)}, or files of one kind ({kinds})",
        )
    return named or fitting[0]


def options_of(task: str, given: Mapping[str, Any]) -> TrainingOptions:
    """The options of ``task``: those ``given`` that are not None, and its defaults. UsageError for another task's."""
    kind = TASKS[task].OPTIONS
    asked = {name: value for name, value in given.items() if value is not None}
    foreign = sorted(set(asked).difference(field.name for field in fields(kind)))
    if foreign:
        raise UsageError(f"--{foreign[0].replace('_', '-')} is no option of {task}", hint="leave it out")
    return kind(**asked)


OPTION_NAMES = sorted({field.name for module in MODULES for field in fields(module.OPTIONS)})


def trained(flag: str, default: Any, **attributes: Any) -> Callable[[Any], Any]:
    """A click option for a field of the tasks' options: what is not given is left to them."""
    return click.option(flag, default=None, show_default=str(default), **attributes)


@click.command(
    context_settings={"show_default": True}, help=__doc__.split("\n\n")[0] + "\n\n" + __doc__.split("\n\n")[2]
)
@click.option("--base", required=True, help="Folder or hub id of the checkpoint to start from.")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File to learn from: SQuAD v1.1 or v2.0, or texts with labels; repeatable.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New folder for the checkpoint.")
@click.option(
    "--task", type=click.Choice(list(TASKS)), show_default="by the data's suffix", help="What is to be learnt."
)
@trained("--epochs", TrainingOptions.epochs, type=click.IntRange(1), help="Passes over the data.")
@trained(
    "--learning-rate",
    TrainingOptions.learning_rate,
    type=click.FloatRange(0, min_open=True),
    help="At the end of the warm-up.",
)
@trained(
    "--warmup", TrainingOptions.warmup, type=click.FloatRange(0, 0.9), help="Share of the steps with a rising rate."
)
@trained("--batch-size", TrainingOptions.batch_size, type=click.IntRange(1), help="Rows in a batch.")
@trained(
    "--max-seq-len",
    f"{QuestionAnsweringOptions.max_seq_len}; of texts the model's limit",
    type=click.IntRange(8),
    help="Tokens in a row: a window of a context, or a text.",
)
@trained(
    "--doc-stride",
    QuestionAnsweringOptions.doc_stride,
    type=click.IntRange(0),
    help="Question answering: tokens that neighbouring windows share.",
)
@trained(
    "--max-question-len",
    QuestionAnsweringOptions.max_question_len,
    type=click.IntRange(1),
    help="Question answering: tokens a question is cut to.",
)
@trained(
    "--problem-type",
    ClassificationOptions.problem_type,
    type=click.Choice(PROBLEM_TYPES),
    help="Text classification: one label for each text, several (a list, or a|b), or a score.",
)
@trained(
    "--layers",
    "all",
    type=click.IntRange(1),
    help="Keep so many of the base's layers, at even distances: a smaller, faster model.",
)
@trained(
    "--feed-forward",
    "all",
    type=click.IntRange(1),
    help="Keep so many of the feed-forward columns of each layer, a multiple of 32: those that its outputs need most.",
)
@click.option(
    "--distil",
    metavar="TEACHER",
    help="Folder or hub id of a larger model for the task with the same tokenizer, whose outputs are learnt too.",
)
@click.option("--freeze-embeddings", is_flag=True, help="Train the layers and the head only.")
@trained("--seed", TrainingOptions.seed, type=click.IntRange(0), help="Decides the head, the order and the dropout.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@trained(
    "--precision",
    TrainingOptions.precision,
    type=click.Choice(["auto", "bf16", "fp32"]),
    help="Of the arithmetic; weights are fp32.",
)
@click.option(
    "--checkpoint-every", default=500, type=click.IntRange(1), help="Steps between two states a kill can cost."
)
@click.option(
    "--dtype",
    default="float32",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Of the saved weights.",
)
@click.option(
    "--attribution", multiple=True, help="A line for the README, such as the licence of the data; repeatable."
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--token", envvar="HF_TOKEN", help="For a private or gated hub id.")
@click.option("--local-files-only", is_flag=True, help="Take hub ids from the cache.")
@click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin where there is no model.safetensors.")
def command(base: str, data: Tuple[Path, ...], output: Path, task: Optional[str], **keywords: Any) -> None:
    given = {name: keywords.pop(name) for name in OPTION_NAMES}
    task = task_of(data, task)
    finetune(task, base, data, output, options_of(task, given), **keywords)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    try:
        command(list(arguments), standalone_mode=False)
    except NeuronBertError as error:
        print_message(f"error: {error}")
        return error.exit_code
    except click.UsageError as error:
        error.show()
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        print_message("interrupted; the same command goes on from the last state")
        return EXIT_INTERRUPTED
    return 0
