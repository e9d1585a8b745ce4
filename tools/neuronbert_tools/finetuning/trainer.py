"""Training step by step, from a state that can be written and taken up again (run.py) to the end."""

import math
from pathlib import Path
from typing import Any, Iterator, List, Optional

from neuronbert.engine.batches import collate
from neuronbert.errors import InputError
from neuronbert_tools.finetuning.distillation import Teacher
from neuronbert_tools.finetuning.model import parameter_groups
from neuronbert_tools.finetuning.options import TrainingOptions
from neuronbert_tools.finetuning.progress import Progress
from neuronbert_tools.finetuning.run import Run, whole_file
from neuronbert_tools.finetuning.schedule import epoch_batches, learning_rate_at
from neuronbert_tools.finetuning.task import Lesson, Lessons

MAX_GRADIENT_NORM = 1.0


class Trainer:
    """The model, its optimiser and how far they are; ``train`` goes on from there to the end."""

    def __init__(
        self,
        model: Any,
        lessons: Lessons,
        pad_id: int,
        options: TrainingOptions,
        device: str,
        teacher: Optional[Teacher] = None,
    ):
        import torch

        self._teacher = teacher
        self.torch = torch
        self.options, self.lessons, self.device = options, lessons, torch.device(device)
        self.pad_id = pad_id
        torch.manual_seed(options.seed)
        self.model = model.to(self.device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model), lr=options.learning_rate)
        lengths = [len(item.row.input_ids) for item in lessons.items]
        self._lengths = lengths
        self.steps_per_epoch = math.ceil(len(lengths) / options.batch_size)
        self.steps = self.steps_per_epoch * options.epochs
        self.step = 0
        self.losses: List[float] = []

    def train(self, run: Run, checkpoint_every: int, progress: Progress) -> None:
        """All steps that are left, writing the state every ``checkpoint_every`` steps and at the end."""
        self.model.train()
        for batch in self._batches_left():
            self.losses.append(self._one_step(batch))
            self.step += 1
            progress.update(self.step, self.losses)
            if self.step % checkpoint_every == 0 or self.step == self.steps:
                self.save(run.state_path)

    def _batches_left(self) -> Iterator[List[Lesson]]:
        for epoch in range(self.step // self.steps_per_epoch, self.options.epochs):
            batches = epoch_batches(self._lengths, self.options.batch_size, self.options.seed, epoch)
            for indices in batches[self.step - epoch * self.steps_per_epoch :]:
                yield [self.lessons.items[index] for index in indices]

    def _one_step(self, items: List[Lesson]) -> float:
        torch = self.torch
        rate = learning_rate_at(self.step, self.steps, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = collate([item.row for item in items], self.pad_id)
        inputs = [torch.from_numpy(array).to(self.device) for array in batch]
        targets = torch.tensor([item.target for item in items], device=self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.precision == "bf16"):
            outputs = self.model(*inputs)
        if self._teacher is None:
            loss = self.lessons.loss(outputs, inputs[1], targets)
        else:
            loss = self._teacher.loss(self.lessons, inputs, outputs, targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"the loss became {value} at step {self.step}", hint="a lower --learning-rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        return value

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
