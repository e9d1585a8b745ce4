"""The verbs about artifacts: compile one, inspect one, and the environment that one runs in."""

from typing import Any

import click

from neuronbert.cli.options import (
    backend_option,
    checkpoint_argument,
    gate_data_option,
    gate_options,
    hub_options,
    json_option,
    neuron_options,
    threads_option,
    trusted_key_for,
    trusted_key_option,
    tuning_option,
    variant_option,
)
from neuronbert.cli.output import show
from neuronbert.cli.progress import Progress, Stages, note
from neuronbert.tasks import TASKS


@click.command("compile", short_help="Compile a checkpoint into an artifact.")
@checkpoint_argument
@click.argument("output", type=click.Path())
@click.option(
    "--task", type=click.Choice(list(TASKS)), help="What it is for.  [default: what the checkpoint has a head for]"
)
@click.option(
    "--pooling",
    help="feature-extraction: how an embedding is made of a text's tokens: auto, mean, cls, max, mean_sqrt_len, "
    "weightedmean, lasttoken, several with +, or none (each token's own).  [default: as the checkpoint says, or mean]",
)
@click.option(
    "--select-windows",
    type=click.IntRange(min=1),
    help="question-answering: of a long context read so many windows with the question's words first, and more while "
    "the answer changes; what that costs is measured.  [default: read all]",
)
@backend_option
@click.option(
    "--precision",
    multiple=True,
    default=["auto"],
    show_default=True,
    help="auto, fp32, tf32, bf16, fp16, fp8, int8; repeatable.",
)
@click.option(
    "--optimize-for",
    type=click.Choice(["exactness", "throughput"]),
    default="exactness",
    show_default=True,
    help="throughput: remove attention heads and feed-forward columns from the fastest, more and more as long as "
    "--min-f1-ratio of FP32's accuracy is left, and take what is fastest.",
)
@click.option(
    "--student",
    metavar="CHECKPOINT",
    help="With --optimize-for throughput: a smaller checkpoint of the same task and tokenizer to try first, as "
    "tools/finetune.py --distil makes them; of a hub id the newest revision.",
)
@gate_options
@neuron_options
@tuning_option
@hub_options
@threads_option
@json_option
def compile_(checkpoint: str, output: str, as_json: bool, **options: Any) -> None:
    """Compile CHECKPOINT (hub id, folder or "demo") into the new folder OUTPUT, an artifact.

    With auto, builds what this machine can run, refuses what does not agree with FP32, times the rest and keeps the
    fastest.
    """
    from neuronbert.backends.quiet import stdout_to_stderr
    from neuronbert.cli.tables import compile_report
    from neuronbert.compiler.compilation import compile_checkpoint

    # Native libraries print what they like to stdout, which is the result's.
    with stdout_to_stderr(), Progress("compiling") as bar:
        stages = Stages(bar)
        artifact = compile_checkpoint(checkpoint, output, progress=stages.line, on_step=stages.step, **options)
    document = {"artifact": str(artifact.folder), "manifest": artifact.manifest}
    show(as_json, document, lambda: compile_report(artifact))


@click.command("cascade", short_help="Make one artifact of a small and a large one.")
@click.argument("small", type=click.Path())
@click.argument("large", type=click.Path())
@click.argument("output", type=click.Path())
@click.option("--small-variant", help="A variant of SMALL, or a backend.  [default: the fastest that runs here]")
@click.option("--large-variant", help="A variant of LARGE, or a backend.  [default: the fastest that runs here]")
@click.option(
    "--min-f1-ratio", type=click.FloatRange(0, 1), help="The least F1, as a share of LARGE's.  [default: 0.99]"
)
@click.option(
    "--min-answer-f1",
    type=click.FloatRange(0, 1),
    help="How far the answers must be LARGE's: their token F1.  [default: 0.90]",
)
@gate_data_option
@threads_option
@trusted_key_for("SMALL, and one LARGE")
@json_option
def cascade(small: str, large: str, output: str, as_json: bool, **options: Any) -> None:
    """Make the new artifact OUTPUT of two: SMALL answers, and LARGE is asked where SMALL is in doubt.

    How sure SMALL must be is chosen on the gate's questions: as little as leaves the answers as good as LARGE's. Where
    that is no gain, there is no OUTPUT.
    """
    from neuronbert.backends.quiet import stdout_to_stderr
    from neuronbert.cli.tables import cascade_report
    from neuronbert.compiler.cascade import make_cascade

    with stdout_to_stderr(), Progress("comparing") as bar:
        stages = Stages(bar)
        artifact = make_cascade(small, large, output, progress=stages.line, on_step=stages.step, **options)
    document = {"artifact": str(artifact.folder), "manifest": artifact.manifest}
    show(as_json, document, lambda: cascade_report(artifact))


@click.command("inspect", short_help="Show what is in an artifact, and verify its checksums.")
@click.argument("artifact", type=click.Path())
@trusted_key_option
@json_option
def inspect_(artifact: str, as_json: bool, **options: Any) -> None:
    """Verify every checksum of ARTIFACT and show its manifest, and whether it is signed."""
    from neuronbert.artifact.manifest import load_artifact
    from neuronbert.artifact.signatures import signature_state
    from neuronbert.cli.tables import manifest_table

    loaded = load_artifact(artifact, **options)
    document = {**loaded.manifest, "signature": signature_state(loaded.folder, loaded.signed_by)}
    show(as_json, document, lambda: manifest_table(loaded))


@click.command("sign", short_help="Sign an artifact, for those who load it with --trusted-key.")
@click.argument("artifact", type=click.Path())
@click.option("--key", required=True, type=click.Path(), help="A private Ed25519 key, as ssh-keygen makes them.")
@json_option
def sign(artifact: str, as_json: bool, **options: Any) -> None:
    """Sign ARTIFACT, once all of it is verified, so that others can load it with --trusted-key FILE.pub.

    ssh-keygen -t ed25519 -f FILE makes a key: FILE signs, and FILE.pub verifies. For a key with a passphrase, or in an
    agent: ssh-keygen -Y sign -n neuronbert-artifact -f FILE ARTIFACT/neuronbert.json.
    """
    from neuronbert.artifact.signing import sign_artifact

    signed = sign_artifact(artifact, **options)
    show(as_json, signed.as_dict(), lambda: f"{signed.signature}\nsigned by {signed.fingerprint}: {signed.public_key}")


@click.command("env", short_help="Print the variables that give an artifact its NeuronCores.")
@click.argument("artifact", type=click.Path())
@click.option("--instance-type", help="Another inf1 size than it was compiled for.")
@click.option("--worker", type=click.IntRange(min=0), help="Only this worker's share: its own cores and host threads.")
@variant_option
@trusted_key_option
@json_option
def env(artifact: str, as_json: bool, **options: Any) -> None:
    """The variables that give ARTIFACT its NeuronCores, as a shell reads them: eval "$(neuronbert env ARTIFACT)".

    For one process that drives the whole instance, or with --worker for one of several.
    """
    from neuronbert.runner.core_environment import core_environment

    result = core_environment(artifact, **options)
    for line in result.explanation:
        note(line)
    show(as_json, result.as_dict(), result.as_shell)
