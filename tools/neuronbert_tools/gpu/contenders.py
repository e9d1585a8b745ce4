"""What is measured side by side: a variant of ours, and transformers' own model in several ways. All take numpy rows.

Each gets the same rows, of texts tokenised beforehand, and returns logits in numpy: copies to the GPU and back count.
transformers' rows are sorted by length and padded to the longest of their batch, which is the best that padding can do.
"""

import contextlib
from typing import Any, Callable, ContextManager, Dict, List, NamedTuple, Sequence, Tuple

from neuronbert.backends.base import ThroughputPlan
from neuronbert.engine.batches import collate, infer_concurrently, plan_batches
from neuronbert.engine.engine import Engine
from neuronbert.tasks.base import Row

# Rows and tokens of transformers' batches; smaller ones are slower on a large GPU.
PADDED_PLANS = (ThroughputPlan(1, 128, 1 << 20), ThroughputPlan(1, 512, 1 << 20))


WAYS = {
    "fp32": "fp32",
    "tf32": "tf32",
    "amp": "autocast fp16",
    "fp16": "fp16",
    "compiled": "fp16, torch.compile",
}


class Contender(NamedTuple):
    """Something that takes all rows; ``run`` returns when their logits are there."""

    name: str
    run: Callable[[Sequence[Row]], Any]


def our_variant(engine: Engine) -> Contender:
    """A loaded variant, driven as Engine and compile drive it."""

    def run(rows: Sequence[Row]) -> Any:
        return infer_concurrently(engine.session, rows, engine.specs, engine.plan, engine.tokenizer.pad_id)

    return Contender(f"neuronbert {engine.variant['precision']}", run)


def transformers_ways(folder: str, names: Sequence[str]) -> List[Contender]:
    """Those ways of running transformers' own model of the checkpoint in ``folder``, each with every padded plan."""
    import torch
    from transformers import BertForQuestionAnswering

    def model(dtype: Any) -> Any:
        return BertForQuestionAnswering.from_pretrained(folder).eval().to("cuda", dtype)

    def half_precision() -> ContextManager[Any]:
        around: ContextManager[Any] = torch.autocast("cuda", torch.float16)
        return around

    plain = contextlib.nullcontext
    ways: Dict[str, Callable[[], Tuple[Any, Callable[[], ContextManager[Any]]]]] = {
        "fp32": lambda: (model(torch.float32), plain),
        "tf32": lambda: (model(torch.float32), _tf32),
        "amp": lambda: (model(torch.float32), half_precision),
        "fp16": lambda: (model(torch.float16), plain),
        "compiled": lambda: (torch.compile(model(torch.float16), dynamic=True), plain),
    }
    chosen = [(name, *ways[name]()) for name in names]
    return [
        Contender(f"transformers {WAYS[name]}, batch {plan.rows}", _padded(made, around, plan))
        for name, made, around in chosen
        for plan in PADDED_PLANS
    ]


@contextlib.contextmanager
def _tf32() -> Any:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def _padded(model: Any, around: Callable[[], ContextManager[Any]], plan: ThroughputPlan) -> Callable[..., Any]:
    import torch

    def run(rows: Sequence[Row]) -> List[Any]:
        logits = []
        with torch.inference_mode(), around():
            for indices in plan_batches([len(row.input_ids) for row in rows], plan):
                batch: Dict[str, Any] = collate([rows[index] for index in indices], 0)._asdict()
                inputs = {name: torch.from_numpy(array).cuda() for name, array in batch.items()}
                found = model(**inputs)
                logits.append((found.start_logits.float().cpu().numpy(), found.end_logits.float().cpu().numpy()))
        return logits

    return run
