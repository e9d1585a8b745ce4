"""Makes a question-answering checkpoint from a base checkpoint and SQuAD-format data.

    python tools/finetune_qa.py --base bert-base-uncased --data train-v1.1.json --output my-reader

The base is a BERT, DistilBERT, RoBERTa or ELECTRA folder or hub id; if it has no question-answering head, one is drawn
from the seed. Progress goes to OUTPUT.training/ and survives kill -9: the same command continues where the last state
was written and ends with the same weights (on a CPU to the last bit). When all steps are done the checkpoint is read
back and checked, and only then renamed to OUTPUT.
"""

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import click

from neuronbert.checkpoint.loading import BaseCheckpoint, load_base_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.checkpoint.weights import fingerprint
from neuronbert.errors import NeuronBertError, UsageError
from neuronbert.hardware.untrusted import sha256_of
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.task import HEAD
from neuronbert_tools.console import print_message
from neuronbert_tools.finetuning.labels import read_windows
from neuronbert_tools.finetuning.model import build_model
from neuronbert_tools.finetuning.options import TrainingOptions, choose_device, choose_precision
from neuronbert_tools.finetuning.progress import Progress
from neuronbert_tools.finetuning.result import write_checkpoint, write_readme
from neuronbert_tools.finetuning.run import Run
from neuronbert_tools.finetuning.trainer import Trainer

EXIT_INTERRUPTED = 130
DATA = click.Path(exists=True, dir_okay=False, path_type=Path)
PRECISIONS = click.Choice(["auto", "bf16", "fp32"])
DTYPES = click.Choice(["float32", "float16", "bfloat16"])


def finetune(
    base: str,
    data: Sequence[Path],
    output: Path,
    options: TrainingOptions,
    *,
    device: str = "auto",
    checkpoint_every: int = 500,
    dtype: str = "float32",
    attribution: Sequence[str] = (),
    **hub: Any,
) -> None:
    """Train ``base`` on the SQuAD files ``data`` into the new folder ``output``, or go on with a run cut off before."""
    checkpoint = load_base_checkpoint(base, HEAD, **hub)
    tokenizer = Tokenizer.from_bytes(
        checkpoint.tokenizer["tokenizer.json"], checkpoint.tokenizer["tokenizer_config.json"], checkpoint.config
    )
    device = choose_device(device)
    options = replace(options, precision=choose_precision(options.precision, device))
    identity = identify(checkpoint, data, options)
    run = Run(output, identity)
    run.open()
    with run.lock():
        windows = read_windows(data, tokenizer, options)
        model = build_model(checkpoint, options)
        trainer = Trainer(model, windows, tokenizer.pad_id, options, device)
        if run.state_path.exists():
            trainer.restore(run.state_path)
            print_message(f"resuming at step {trainer.step} of {trainer.steps}")
        print_message(f"{len(windows)} windows, {trainer.steps} steps on {trainer.device}, {options.precision}")
        progress = Progress(trainer.steps, trainer.step, trainer.steps_per_epoch)
        trainer.train(run, checkpoint_every, progress)
        finish(run, checkpoint, trainer, identity, dtype, attribution)
    print(output)


def identify(base: BaseCheckpoint, paths: Sequence[Path], options: TrainingOptions) -> Dict[str, Any]:
    """What two commands must share to be the same run: weights, data and options."""
    data = [[path.name, sha256_of(path)] for path in paths]
    return {
        "base": base.source,
        "revision": base.revision,
        "base_fingerprint": fingerprint(base.tensors),
        "data": data,
        "options": asdict(options),
    }


def finish(
    run: Run, base: BaseCheckpoint, trainer: Trainer, identity: Dict[str, Any], dtype: str, attribution: Sequence[str]
) -> None:
    """Write the checkpoint beside its place, read it back, move it there, and clear the run away."""
    folder = run.folder / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_checkpoint(folder, base, trainer.model, dtype)
    write_readme(folder, run.output.name, identity, trainer.losses, attribution)
    load_checkpoint(folder)
    os.replace(folder, run.output)
    shutil.rmtree(run.folder)


@click.command(
    context_settings={"show_default": True}, help=__doc__.split("\n\n")[0] + "\n\n" + __doc__.split("\n\n")[2]
)
@click.option("--base", required=True, help="Folder or hub id of the checkpoint to start from.")
@click.option("--data", required=True, multiple=True, type=DATA, help="SQuAD v1.1 or v2.0 file; repeatable.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New folder for the checkpoint.")
@click.option("--epochs", default=2, type=click.IntRange(1), help="Passes over the data.")
@click.option(
    "--learning-rate", default=5e-5, type=click.FloatRange(0, min_open=True), help="At the end of the warm-up."
)
@click.option("--warmup", default=0.1, type=click.FloatRange(0, 0.9), help="Share of the steps with a rising rate.")
@click.option("--batch-size", default=16, type=click.IntRange(1), help="Windows in a batch.")
@click.option("--max-seq-len", default=384, type=click.IntRange(8), help="Tokens in a window.")
@click.option("--doc-stride", default=128, type=click.IntRange(0), help="Tokens that neighbouring windows share.")
@click.option("--max-question-len", default=64, type=click.IntRange(1), help="Tokens a question is cut to.")
@click.option("--freeze-embeddings", is_flag=True, help="Train the layers and the head only.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Decides the head, the order and the dropout.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", type=PRECISIONS, help="Of the arithmetic; weights are fp32.")
@click.option(
    "--checkpoint-every", default=500, type=click.IntRange(1), help="Steps between two states a kill can cost."
)
@click.option("--dtype", default="float32", type=DTYPES, help="Of the saved weights.")
@click.option(
    "--attribution", multiple=True, help="A line for the README, such as the licence of the data; repeatable."
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--token", envvar="HF_TOKEN", help="For a private or gated hub id.")
@click.option("--local-files-only", is_flag=True, help="Take hub ids from the cache.")
@click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin where there is no model.safetensors.")
def command(base: str, data: Tuple[Path, ...], output: Path, **keywords: Any) -> None:
    names = TrainingOptions.__dataclass_fields__
    options = TrainingOptions(**{name: keywords.pop(name) for name in names})
    finetune(base, data, output, options, **keywords)


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
