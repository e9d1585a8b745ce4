#!/usr/bin/env python3
"""Makes a question-answering checkpoint from a base checkpoint and SQuAD-format data.

    python tools/finetune_qa.py --base bert-base-uncased --data train-v1.1.json --output my-reader

The base is a BERT, DistilBERT, RoBERTa or ELECTRA folder or hub id; if it has no question-answering head, one is drawn
from the seed. Progress goes to OUTPUT.training/ and survives kill -9: the same command continues where the last state
was written and ends with the same weights (on a CPU to the last bit). When all steps are done the checkpoint is read
back and checked, and only then renamed to OUTPUT.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import click
import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from neuronbert.checkpoint.families import size_of  # noqa: E402
from neuronbert.checkpoint.loading import BaseCheckpoint, load_base_checkpoint, load_checkpoint  # noqa: E402
from neuronbert.checkpoint.weights import fingerprint  # noqa: E402
from neuronbert.errors import InputError, NeuronBertError, OutputError, UsageError  # noqa: E402
from neuronbert.hardware.machine import has_bf16  # noqa: E402
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad  # noqa: E402
from neuronbert.tasks.question_answering.windows import (  # noqa: E402
    Example,
    Tokenizer,
    Window,
    WindowOptions,
    collate,
    encode_examples,
)

WEIGHT_DECAY = 0.01  # with the clipping below, the settings of the BERT paper (arXiv 1810.04805, appendix A.2)
MAX_GRADIENT_NORM = 1.0
CHUNK = 512  # questions tokenised at a time: encodings of a whole data set would take gigabytes
GROUP_BATCHES = 50  # batches whose windows are sorted by length together
PADDING_LOGIT = -10000.0
EXIT_INTERRUPTED = 130
DEFAULT_ATTRIBUTION = "The terms of the base checkpoint and of the data apply to these weights: pass them on."


@dataclass(frozen=True)
class TrainingOptions:
    """What decides the final weights; a run is resumed only under the same ones."""

    epochs: int
    learning_rate: float
    warmup: float  # share of the steps
    batch_size: int  # windows
    max_seq_len: int  # tokens
    doc_stride: int  # tokens
    max_question_len: int  # tokens
    freeze_embeddings: bool
    seed: int
    precision: str  # bf16 or fp32; auto until the device is known


class LabelledWindow(NamedTuple):
    """A window and the positions in it of the answer's first and last token; 0 and 0 (the CLS token) without one."""

    window: Window
    start: int
    end: int


# --- data: pure ---


def label_windows(example: Example, answer: Optional[Tuple[int, int]]) -> List[LabelledWindow]:
    """Label each window of ``example`` with ``answer``, its first and last character, or None if there is none.

    A window that does not show the whole answer is labelled as having none.
    """
    tokens = None if answer is None else _answer_tokens(example, *answer)
    labelled = []
    for window in example.windows:
        start = end = 0
        if tokens is not None:
            first, stop = window.first_token, window.first_token + window.token_count
            if first <= tokens[0] and tokens[1] < stop:
                start, end = (window.context_start + token - first for token in tokens)
        labelled.append(LabelledWindow(window, start, end))
    return labelled


def _answer_tokens(example: Example, first: int, last: int) -> Optional[Tuple[int, int]]:
    """First and last token of characters ``first`` to ``last``; characters that became no token are passed over."""
    encoding = example.context_encoding
    starts = (encoding.char_to_token(character) for character in range(first, last + 1))
    ends = (encoding.char_to_token(character) for character in range(last, first - 1, -1))
    start = next((token for token in starts if token is not None), None)
    end = next((token for token in ends if token is not None), None)
    return None if start is None or end is None else (start, end)


def answer_span(question: SquadQuestion) -> Optional[Tuple[int, int]]:
    """First and last character of the first answer without the spaces around it; None for an impossible question.

    InputError when the context does not have the answer where the data says.
    """
    if question.is_impossible:
        return None
    text, start = question.answers[0], question.answer_starts[0]
    if not text.strip() or start < 0 or question.context[start : start + len(text)] != text:
        raise InputError(f"question {question.id}: the context does not have {text!r} at character {start}")
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip()) - 1


def learning_rate_at(step: int, steps: int, options: TrainingOptions) -> float:
    """Linear warm-up from 0 over the first ``warmup`` share of ``steps``, then linear decay to 0 after the last."""
    rising = math.ceil(steps * options.warmup)
    if step < rising:
        return options.learning_rate * (step + 1) / rising
    return options.learning_rate * (steps - step) / (steps - rising)


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> List[np.ndarray]:
    """Indices of each batch of an epoch: every window once, in an order that seed and epoch alone decide.

    Windows of like length come together, so that little is padded; which ones meet, and when, is random.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    span = batch_size * GROUP_BATCHES
    batches: List[np.ndarray] = []
    for begin in range(0, len(order), span):
        group = order[begin : begin + span]
        group = group[np.argsort(np.asarray(lengths)[group], kind="stable")]
        batches.extend(group[at : at + batch_size] for at in range(0, len(group), batch_size))
    return [batches[number] for number in random.permutation(len(batches))]


def read_windows(paths: Sequence[Path], tokenizer: Tokenizer, options: TrainingOptions) -> List[LabelledWindow]:
    """Every window of every question of the SQuAD files; questions with a misplaced answer are counted and left out."""
    window_options = WindowOptions(options.max_seq_len, options.doc_stride, options.max_question_len)
    windows: List[LabelledWindow] = []
    for path in paths:
        questions, spans, misplaced = [], [], 0
        for question in load_squad(path):
            try:
                spans.append(answer_span(question))
                questions.append(question)
            except InputError:
                misplaced += 1
        if misplaced:
            note(f"{path}: {misplaced} questions left out, whose answer is not where answer_start says")
        for begin in range(0, len(questions), CHUNK):
            chunk = questions[begin : begin + CHUNK]
            examples = encode_examples(tokenizer, [(q.question, q.context) for q in chunk], window_options)
            for example, span in zip(examples, spans[begin : begin + CHUNK]):
                windows.extend(label_windows(example, span))
    if not windows:
        raise InputError(f"no question to learn from in {', '.join(map(str, paths))}", hint="a SQuAD-format file")
    return windows


# --- the run: a folder beside the output ---


class Run:
    """OUTPUT.training/: the options it was started with, the last whole state, and a lock while it is being trained."""

    def __init__(self, output: Path, identity: Dict[str, Any]):
        self.output = output
        self.folder = output.with_name(output.name + ".training")
        self.state_path = self.folder / "state.pt"
        self._identity = identity

    def open(self) -> None:
        """Create the folder, or join it if it is of the same run; OutputError otherwise."""
        if self.output.exists():
            raise OutputError(f"{self.output} exists already", hint="choose another --output, or move it away")
        identity_path = self.folder / "options.json"
        if identity_path.exists():
            started = json.loads(identity_path.read_text(encoding="utf-8"))
            self._refuse_other(started)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot be made: {error.strerror}", hint="choose another --output"
            ) from error
        with whole_file(identity_path) as file:
            file.write(json.dumps(self._identity, indent=2).encode() + b"\n")

    def _refuse_other(self, started: Dict[str, Any]) -> None:
        names = sorted(name for name in {*started, *self._identity} if started.get(name) != self._identity.get(name))
        if names:
            changed = ", ".join(f"{name} was {started.get(name)!r}, is {self._identity.get(name)!r}" for name in names)
            raise OutputError(
                f"{self.folder} holds a run with other options: {changed}",
                hint=f"the options of that run, another --output, or start over: rm -r {self.folder}",
            )

    def lock(self) -> Any:
        """Held while training; OutputError if another process holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(str(self.folder / "lock"))
        try:
            return lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"another process is training in {self.folder}", hint="wait for it, or stop it"
            ) from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file written under a temporary name, then renamed: ``path`` always holds all of the old or all of the new."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


# --- training ---


class Trainer:
    """The model, its optimiser and how far they are; ``train`` goes on from there to the end."""

    def __init__(self, model: Any, windows: List[LabelledWindow], pad_id: int, options: TrainingOptions, device: str):
        import torch

        self.torch = torch
        self.options, self.windows, self.device = options, windows, torch.device(device)
        self.pad_id = pad_id
        torch.manual_seed(options.seed)
        self.model = model.to(self.device)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.model), lr=options.learning_rate)
        lengths = [len(item.window.input_ids) for item in windows]
        self._lengths = lengths
        self.steps_per_epoch = math.ceil(len(lengths) / options.batch_size)
        self.steps = self.steps_per_epoch * options.epochs
        self.step = 0
        self.losses: List[float] = []

    def train(self, run: Run, checkpoint_every: int, progress: "Progress") -> None:
        """All steps that are left, writing the state every ``checkpoint_every`` steps and at the end."""
        self.model.train()
        for batch in self._batches_left():
            self.losses.append(self._one_step(batch))
            self.step += 1
            progress.update(self.step, self.losses)
            if self.step % checkpoint_every == 0 or self.step == self.steps:
                self.save(run.state_path)

    def _batches_left(self) -> Iterator[List[LabelledWindow]]:
        for epoch in range(self.step // self.steps_per_epoch, self.options.epochs):
            batches = epoch_batches(self._lengths, self.options.batch_size, self.options.seed, epoch)
            for indices in batches[self.step - epoch * self.steps_per_epoch :]:
                yield [self.windows[index] for index in indices]

    def _one_step(self, items: List[LabelledWindow]) -> float:
        torch = self.torch
        rate = learning_rate_at(self.step, self.steps, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = collate([item.window for item in items], self.pad_id)
        inputs = [torch.from_numpy(array).to(self.device) for array in batch]
        targets = torch.tensor([[item.start, item.end] for item in items], device=self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.precision == "bf16"):
            logits = self.model(*inputs)
        loss = sum(self._loss(logits[number], inputs[1], targets[:, number]) for number in range(2)) / 2
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"the loss became {value} at step {self.step}", hint="a lower --learning-rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        return value

    def _loss(self, logits: Any, mask: Any, target: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(logits.float().masked_fill(mask == 0, PADDING_LOGIT), target)

    def save(self, path: Path) -> None:
        """Write the whole state under a temporary name, then rename it."""
        torch = self.torch
        state = {
            "step": self.step,
            # Tensors and whole numbers only: torch 1.13 reads no floats with weights_only. The optimiser's settings
            # come from the options anyway.
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "cpu_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        with whole_file(path) as file:
            torch.save(state, file)

    def restore(self, path: Path) -> None:
        """Take up the state that ``save`` wrote."""
        torch = self.torch
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.step, self.losses = state["step"], state["losses"].tolist()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
        torch.set_rng_state(state["cpu_random"])
        if self.device.type == "cuda" and state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.device)


def build_model(base: BaseCheckpoint, options: TrainingOptions) -> Any:
    """The base's weights in a question-answering model; a head that it lacks is drawn from the seed."""
    from neuronbert.checkpoint.reference_model import build_reference_model
    from neuronbert.checkpoint.tokenizer_files import uses_token_types

    arrays = {name: tensor.float32() for name, tensor in base.tensors.items()}
    if "qa_outputs.weight" not in arrays:
        width = size_of(base.config, base.family, "hidden_size")
        random = np.random.default_rng(options.seed)
        spread = float(base.config.get("initializer_range") or 0.02)
        arrays["qa_outputs.weight"] = random.normal(0.0, spread, (2, width)).astype(np.float32)
        arrays["qa_outputs.bias"] = np.zeros(2, np.float32)
    types = base.family.has_token_types and uses_token_types(base.tokenizer)
    model = build_reference_model(base.family, base.config, arrays, types)
    if base.family.model_type == "electra" and "electra.embeddings_project.weight" in arrays:
        # Under autocast this projection gives bfloat16, which the norms of torch 1.13 do not take.
        model.model.electra.embeddings_project.register_forward_hook(lambda _module, _inputs, output: output.float())
    if options.freeze_embeddings:
        for name, parameter in model.named_parameters():
            if ".embeddings." in name:
                parameter.requires_grad_(False)
    return model


def _parameter_groups(model: Any) -> List[Dict[str, Any]]:
    """Weight decay for the matrices, none for biases and norms."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {"params": [p for _, p in trained if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


class Progress:
    """One line on stderr: step, loss, speed and the time left; redrawn on a terminal, every 10 s in a log."""

    def __init__(self, steps: int, first_step: int, steps_per_epoch: int):
        self._steps, self._first, self._per_epoch = steps, first_step, steps_per_epoch
        self._began = self._last_shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def update(self, step: int, losses: Sequence[float]) -> None:
        now = time.monotonic()
        done = step == self._steps
        if not done and now - self._last_shown < (0.5 if self._terminal else 10.0):
            return
        self._last_shown = now
        steps_per_s = (step - self._first) / max(now - self._began, 1e-9)
        left_s = int((self._steps - step) / steps_per_s)
        epoch = min((step - 1) // self._per_epoch + 1, self._steps // self._per_epoch)
        recent = losses[-50:]
        line = (
            f"epoch {epoch}/{self._steps // self._per_epoch}  step {step}/{self._steps}"
            f"  loss {sum(recent) / len(recent):.3f}  {steps_per_s:.2f} steps/s"
            f"  ETA {left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
        )
        end = "\n" if done or not self._terminal else ""
        print(("\r\x1b[K" if self._terminal else "") + line, end=end, file=sys.stderr, flush=True)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the result ---


def write_checkpoint(folder: Path, base: BaseCheckpoint, model: Any, dtype: str) -> None:
    """config.json, model.safetensors and the tokenizer, as transformers saves them."""
    import torch
    from safetensors.torch import save

    kind = getattr(torch, dtype)
    prefix = "model."  # of the transformers object inside the reference model
    tensors = {
        name[len(prefix) :]: parameter.detach().to("cpu", kind).contiguous()
        for name, parameter in model.named_parameters()
    }
    # Not save_file, which makes the file readable for its owner only.
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    config = {key: value for key, value in base.config.items() if key not in ("dtype", "_name_or_path", "auto_map")}
    config.update(architectures=[base.family.architecture], model_type=base.family.model_type, torch_dtype=dtype)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name, content in base.tokenizer.items():
        (folder / name).write_bytes(content)


def write_readme(
    folder: Path, name: str, identity: Dict[str, Any], losses: Sequence[float], attribution: Sequence[str]
) -> None:
    """What the checkpoint was made of and how, with the attribution that its sources ask for."""
    last = losses[-50:]
    lines = [
        f"# {name}",
        "",
        f"Fine-tuned with neuronbert's tools/finetune_qa.py from `{identity['base']}`"
        + (f" (revision {identity['revision']})" if identity["revision"] else "")
        + f", weights sha256 {identity['base_fingerprint']}.",
        "",
        "Data:",
        *[f"- {file}, sha256 {digest}" for file, digest in identity["data"]],
        "",
        f"{len(losses)} steps; mean loss of last {len(last)}: {sum(last) / len(last):.4f} (all: training_log.json).",
        "",
        "Options: " + ", ".join(f"{name} {value}" for name, value in sorted(identity["options"].items())) + ".",
        "",
        "## Attribution",
        "",
        *(attribution or [DEFAULT_ATTRIBUTION]),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    (folder / "training_log.json").write_text(json.dumps({**identity, "losses": list(losses)}) + "\n", encoding="utf-8")


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


def identify(base: BaseCheckpoint, paths: Sequence[Path], options: TrainingOptions) -> Dict[str, Any]:
    """What two commands must share to be the same run: weights, data and options."""
    data = [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in paths]
    return {
        "base": base.source,
        "revision": base.revision,
        "base_fingerprint": fingerprint(base.tensors),
        "data": data,
        "options": asdict(options),
    }


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
    checkpoint = load_base_checkpoint(base, **hub)
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
            note(f"resuming at step {trainer.step} of {trainer.steps}")
        note(f"{len(windows)} windows, {trainer.steps} steps on {trainer.device}, {options.precision}")
        progress = Progress(trainer.steps, trainer.step, trainer.steps_per_epoch)
        trainer.train(run, checkpoint_every, progress)
        finish(run, checkpoint, trainer, identity, dtype, attribution)
    print(output)


def choose_device(name: str) -> str:
    """``auto`` is the GPU where torch sees one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: this torch sees no GPU", hint="--device auto")
    return name


DATA = click.Path(exists=True, dir_okay=False, path_type=Path)
PRECISIONS = click.Choice(["auto", "bf16", "fp32"])
DTYPES = click.Choice(["float32", "float16", "bfloat16"])


def choose_precision(name: str, device: str) -> str:
    """``auto`` is bf16 where the hardware multiplies in it; a CPU without it is several times slower than in fp32."""
    import torch

    if name != "auto":
        return name
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else has_bf16()
    return "bf16" if fast else "fp32"


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


def main() -> None:
    try:
        command(standalone_mode=False)
    except NeuronBertError as error:
        note(f"error: {error}")
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        note("interrupted; the same command goes on from the last state")
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
