"""The options of the command line that several verbs share, and those that compile has for each of its parts."""

from typing import Any, Callable, List

import click
from click.shell_completion import CompletionItem

from neuronbert.backends import OFFERED
from neuronbert.cli.task_options import Decorator, task_options


def together(*decorators: Decorator) -> Decorator:
    """One decorator of several, for options that many verbs share."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def complete_checkpoint(_: click.Context, __: click.Parameter, typed: str) -> List[CompletionItem]:
    """What a shell offers for a checkpoint: the demo, and files; nobody can list the hub."""
    demo = [CompletionItem("demo")] if "demo".startswith(typed) else []
    return [*demo, CompletionItem(typed, type="file")]


checkpoint_argument = click.argument("checkpoint", shell_complete=complete_checkpoint)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: OMP_NUM_THREADS, or one for each core]"
)


def trusted_key_for(signed: str) -> Decorator:
    """The option of a verb that verifies signatures; ``signed``: what must be signed, as its help says."""
    return click.option(
        "--trusted-key",
        multiple=True,
        type=click.Path(),
        callback=lambda _, __, files: list(files) or None,
        help=f"A .pub file of ssh-keygen: one of its keys must have signed {signed}; repeatable.  "
        "[env: NEURONBERT_TRUSTED_KEY]",
    )


trusted_key_option = trusted_key_for("ARTIFACT")
BUSY_WAIT_HELP = (
    "Idle processors poll instead of sleeping meanwhile: answers come sooner where few are asked for at once.  "
    "For root on Linux, where the kernel has an idle state that polls."
)
busy_wait_option = click.option("--busy-wait", is_flag=True, help=BUSY_WAIT_HELP)
variant_option = click.option(
    "--variant", help="A variant, or a backend, by name.  [default: the fastest this machine can run]"
)


def list_option(name: str, *, help: str) -> Decorator:
    """Numbers or names with commas; given twice, both count."""
    return click.option(name, multiple=True, help=help, callback=lambda _, __, values: ",".join(values))


hub_options = together(
    click.option("--revision", help="Branch, tag or commit on the hub; the commit is recorded."),
    click.option("--token", envvar="HF_TOKEN", help="Hub token.  [env: HF_TOKEN]"),
    click.option("--local-files-only", is_flag=True, help="Use what the hub's cache holds; never the network."),
    click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin where there are no safetensors."),
)

# The echo backend has no model: it is for tests.
backend_option = click.option(
    "--backend",
    multiple=True,
    default=["auto"],
    show_default=True,
    help=f"{', '.join(['auto', *OFFERED])}; repeatable.",
)
gate_data_option = click.option(
    "--gate-data",
    type=click.Path(),
    help="Data of the task that the gate asks (docs/files.md).  [default: a shipped sample]",
)
gate_options = together(
    click.option(
        "--min-f1-ratio",
        type=click.FloatRange(0, 1),
        help="The gate: the least F1, accuracy or Spearman of a reduced precision, as a share of FP32's.  "
        "[default: 0.99; of Spearman 0.995]",
    ),
    click.option(
        "--min-answer-f1",
        type=click.FloatRange(0, 1),
        help="The gate: how far its answers must be FP32's: their token F1, the share of equal labels, or the mean "
        "cosine of embeddings.  [default: 0.90; of the cosine 0.99]",
    ),
    click.option(
        "--calibration-data",
        type=click.Path(),
        help="Data of the task for int8 calibration (docs/files.md).  [default: a shipped sample]",
    ),
    gate_data_option,
    click.option(
        "--skip-gate", is_flag=True, help="No gate, which the manifest records: for weights that mean nothing."
    ),
)
instance_option = click.option(
    "--instance-type", default="inf1.xlarge", show_default=True, help="neuron: the inf1 size to compile for."
)
neuron_options = together(
    click.option(
        "--batch-size",
        multiple=True,
        default=["1"],
        show_default=True,
        help="neuron, tvm: rows of a batch; repeatable, each is compiled.",
    ),
    click.option(
        "--sequence-length",
        multiple=True,
        default=["384"],
        show_default=True,
        help="neuron, tvm: tokens of a row; repeatable, each is compiled.",
    ),
    instance_option,
    click.option(
        "--no-device",
        is_flag=True,
        help="neuron: compile on a machine that has no chip; nothing is loaded, so there is no gate.",
    ),
    click.option(
        "--mode",
        default="data-parallel",
        show_default=True,
        help="neuron: data-parallel (a model on each core) or pipeline (a model over several).",
    ),
    click.option(
        "--neuroncore-pipeline-cores",
        default="auto",
        show_default=True,
        help="neuron: cores of one pipeline; auto: 4 * round(encoder weights / 2e7), less if the compiler refuses it.",
    ),
    click.option(
        "--auto-cast",
        default="matmul",
        show_default=True,
        help="neuron: what becomes 16 bits: none (of the rest; matrix products always do, as bf16), matmul, all, "
        "compiler (what neuron-cc does unasked).",
    ),
    click.option(
        "--auto-cast-type",
        help="neuron: bf16, fp16 or mixed.  [default: fp16 for matmul, the most accurate; bf16 otherwise]",
    ),
    click.option(
        "--compiler-timeout",
        type=click.IntRange(min=0),
        default=10_800,
        show_default=True,
        help="neuron: seconds for neuron-cc, 0 for no limit; 40 minutes have been seen, and hanging for ever.",
    ),
)
tuning_option = click.option(
    "--tuning-minutes",
    type=float,
    default=10.0,
    show_default=True,
    help="tvm: how long to look for fast schedules, for all shapes together; 0 takes some unmeasured.",
)

on_error_option = click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What a broken line does: end the command, or become an error line of the output.",
)
LINE_FORMATS = ["jsonl", "csv", "tsv"]
FILE_FORMATS = ["npy", "parquet"]  # that only a job writes


def line_options(*tasks: str, output: str) -> Decorator:
    """The options of a verb that answers lines of input, for the tasks called so (none: for all).

    ``output`` says what the format of its results is where nobody says it.
    """
    return together(
        click.option(
            "--input-format",
            type=click.Choice(LINE_FORMATS),
            help="What --input is.  [default: by its suffix, else jsonl]",
        ),
        click.option(
            "--output-format",
            type=click.Choice([*LINE_FORMATS, *FILE_FORMATS]),
            help=f"What is written; npy and parquet by run.  [default: {output}]",
        ),
        on_error_option,
        task_options(tasks),
        variant_option,
        threads_option,
        trusted_key_option,
        json_option,
    )
