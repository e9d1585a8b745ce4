"""What is measured side by side: a variant of ours, and transformers' own model in several ways. All take numpy rows.

Each gets the same rows, of texts tokenised beforehand, and returns logits in numpy: copies to the GPU and back count.
transformers' rows are sorted by length and padded to the longest of their batch, which is the best that padding can do.
"""

import contextlib
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert import compile_checkpoint
from neuronbert.backends.base import ThroughputPlan
from neuronbert.backends.onnxruntime import FILE_NAME
from neuronbert.backends.quiet import import_onnxruntime
from neuronbert.engine.batches import collate, infer_concurrently, plan_batches
from neuronbert.engine.engine import Engine
from neuronbert.tasks.base import Row

# Rows and tokens of transformers' batches; smaller ones are slower on a large GPU.
PADDED_PLANS = (ThroughputPlan(1, 128, 1 << 20), ThroughputPlan(1, 512, 1 << 20))


ONNXRUNTIME = "onnxruntime"
WAYS = {
    "fp32": "fp32",
    "tf32": "tf32",
    "amp": "autocast fp16",
    "fp16": "fp16",
    "compiled": "fp16, torch.compile",
    ONNXRUNTIME: "fp16",
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

    from neuronbert.backends.cuda.session import tf32_products

    def model(dtype: Any) -> Any:
        return BertForQuestionAnswering.from_pretrained(folder).eval().to("cuda", dtype)

    def tf32() -> ContextManager[Any]:
        return tf32_products(True)

    def half_precision() -> ContextManager[Any]:
        around: ContextManager[Any] = torch.autocast("cuda", torch.float16)
        return around

    plain = contextlib.nullcontext
    ways: Dict[str, Callable[[], Tuple[Any, Callable[[], ContextManager[Any]]]]] = {
        "fp32": lambda: (model(torch.float32), plain),
        "tf32": lambda: (model(torch.float32), tf32),
        "amp": lambda: (model(torch.float32), half_precision),
        "fp16": lambda: (model(torch.float16), plain),
        "compiled": lambda: (torch.compile(model(torch.float16), dynamic=True), plain),
    }
    chosen = [(name, *ways[name]()) for name in names if name != ONNXRUNTIME]
    return [
        Contender(f"transformers {WAYS[name]}, batch {plan.rows}", _padded(made, around, plan))
        for name, made, around in chosen
        for plan in PADDED_PLANS
    ]


def onnxruntime_ways(folder: Path, scratch: Path, provider: str = "CUDAExecutionProvider") -> List[Contender]:
    """ONNX Runtime with its fusions and 16 bits, on the checkpoint in ``folder``; none without the ``provider``."""
    onnxruntime = import_onnxruntime()
    if provider not in onnxruntime.get_available_providers():
        return []
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    artifact = compile_checkpoint(folder, scratch, backend="onnxruntime", precision="fp32", skip_gate=True)
    path = str(artifact.variant_folder(artifact.variants[0]) / FILE_NAME)
    half = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=[provider])

    def run(batch: Mapping[str, Any]) -> Any:
        return session.run(None, dict(batch))

    return [Contender(f"onnxruntime fp16, batch {plan.rows}", _in_batches(run, plan)) for plan in PADDED_PLANS]


def _padded(model: Any, around: Callable[[], ContextManager[Any]], plan: ThroughputPlan) -> Callable[..., Any]:
    import torch

    def run(batch: Mapping[str, Any]) -> Any:
        found = model(**{name: torch.from_numpy(array).cuda() for name, array in batch.items()})
        return found.start_logits.float().cpu().numpy(), found.end_logits.float().cpu().numpy()

    def all_rows(rows: Sequence[Row]) -> List[Any]:
        with torch.inference_mode(), around():
            return _in_batches(run, plan)(rows)

    return all_rows


def _in_batches(run: Callable[[Mapping[str, Any]], Any], plan: ThroughputPlan) -> Callable[[Sequence[Row]], List[Any]]:
    """What ``run`` returns of each batch of rows, sorted by length and padded to the longest."""

    def all_rows(rows: Sequence[Row]) -> List[Any]:
        batches = plan_batches([len(row.input_ids) for row in rows], plan)
        return [run(collate([rows[index] for index in batch], 0)._asdict()) for batch in batches]

    return all_rows
