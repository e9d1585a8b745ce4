"""A backend without a model: outputs that are a fixed function of the token ids, for tests of everything around it.

Its file may also name ``faults``, {token id: "exit" | "abort" | "kill" | "hang" | "raise"}, which a batch with that
token provokes, and ``batch_s``, seconds a batch takes: failures for the runner to survive, a device of known speed.
They are for whoever makes them, and refused unless $NEURONBERT_ECHO_FAULTS is set: an artifact may be a stranger's.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, ExportResult, ExportSource, Recipe, ThroughputPlan, Variant
from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output, Outputs
from neuronbert.backends.tracing import traceable
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.schema import Schema, list_of, object_of, record, whole
from neuronbert.hardware.untrusted import Refusal, read_document

PRECISIONS: Tuple[str, ...] = ("fp32",)
STATIC_SHAPES = False
REQUIREMENTS: Mapping[str, str] = {}
DEVICE = "cpu"
AUTO_RANK: Optional[int] = None  # it has no model
BY_NAME_ONLY = False
HOST_BOUND = False
FILE_NAME = "echo.json"
FAULTS_VARIABLE = "NEURONBERT_ECHO_FAULTS"
FAULTS = ("exit", "abort", "kill", "hang", "raise")

# A multiplicative hash: the prime keeps neighbouring ids apart, the modulus (also prime) bounds the logits.
MULTIPLIER = 7919
MODULUS = 1009
LOGIT_RANGE = 10.0

_DAMAGED = Refusal(BackendFailed, "compile the artifact again")
ECHO = Schema(
    **record(
        {"multiplier": whole(1, 1 << 20), "modulus": whole(1, 1 << 20)},
        {
            "faults": {
                "type": "object",
                "patternProperties": {"^[0-9]{1,9}$": {"enum": list(FAULTS)}},
                "additionalProperties": False,
            },
            "batch_s": {"type": "number", "minimum": 0, "maximum": 3600},
            "entries": object_of(list_of(whole(1, 1 << 10), maxItems=1)),
        },
    )
)


def check_available(precision: str) -> None:
    """Raise BackendUnavailable for a precision other than fp32: there is no engine that could be missing."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(f"echo has no precision {precision!r}", hint="--precision fp32")


def batch_invariant(precision: str) -> bool:
    """True: every token is hashed by itself."""
    return True


def throughput_plan(threads: int) -> ThroughputPlan:
    """One stream per thread, and batches small enough that tests see several of them."""
    return ThroughputPlan(streams=threads, rows=8, tokens=4096)


def recipes(precision: str) -> Sequence[Recipe]:
    """A single empty recipe: there is nothing to choose."""
    return [{}]


def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Write the two numbers of the hash, so that an artifact has a file to check, and the shapes of entries if any."""
    entries = {name: shape for name, shape in entry_shapes(source).items() if shape}
    facts = {"multiplier": MULTIPLIER, "modulus": MODULUS, **({"entries": entries} if entries else {})}
    (folder / FILE_NAME).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return ExportResult(batch_invariant=True, requires={"device": "cpu"}, versions={}, recipe=dict(recipe))


@optional_imports()
def entry_shapes(source: ExportSource) -> Dict[str, Tuple[int, ...]]:
    """The shape of each output's entry for one token or one row, as the model gives it; () for a single number."""
    import torch

    model, inputs = traceable(source)
    with torch.no_grad():
        found = model(*inputs)
    return {
        output.name: tuple(array.shape[2 if output.per == PER_TOKEN else 1 :])
        for output, array in zip(source.outputs, found)
    }


def load(folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> "EchoSession":
    """Read the hash back. Raises BackendFailed when its file is not what ``export`` wrote."""
    path = folder / FILE_NAME
    try:
        facts = read_document(path, ECHO, _DAMAGED, links=False)
    except FileNotFoundError:
        raise _DAMAGED.of(f"{path} is missing") from None
    if (facts.get("faults") or facts.get("batch_s")) and not os.environ.get(FAULTS_VARIABLE):
        raise BackendFailed(
            f"{path} has this process take time or end, as tests of the runner do",
            hint=f"export {FAULTS_VARIABLE}=1 if you made it yourself",
        )
    return EchoSession(
        facts["multiplier"],
        facts["modulus"],
        streams,
        {int(token): kind for token, kind in facts.get("faults", {}).items()},
        facts.get("batch_s", 0.0),
        outputs=outputs,
        entries={name: tuple(shape) for name, shape in facts.get("entries", {}).items()},
    )


class EchoSession:
    """Hashes token ids into outputs; rows are independent, and padding gets 0."""

    precision = "fp32"

    def __init__(
        self,
        multiplier: int,
        modulus: int,
        concurrency: int,
        faults: Mapping[int, str],
        batch_s: float = 0.0,
        *,
        outputs: Sequence[Output],
        entries: Optional[Mapping[str, Tuple[int, ...]]] = None,
    ):
        self.concurrency = concurrency
        self._outputs = tuple(outputs)
        self._entries = entries or {}  # output → shape of an entry, where that is not a single number
        self._faults = faults
        self._batch_s = batch_s
        self._multiplier = multiplier
        self._modulus = modulus

    def run(self, batch: Batch) -> Outputs:
        """Numbers in [-LOGIT_RANGE, LOGIT_RANGE), float32 [rows, tokens, …], or [rows, …] of all its tokens."""
        for token, kind in self._faults.items():
            if (batch.input_ids == token).any():
                _break(kind)
        if self._batch_s:
            time.sleep(self._batch_s)
        mask = batch.attention_mask
        keys = batch.input_ids * 2 + batch.token_type_ids + np.arange(mask.shape[1])
        row_keys, row_mask = (keys * mask).sum(axis=1), mask.max(axis=1)
        found = {}
        for number, output in enumerate(self._outputs):
            entry = self._entries.get(output.name, ())
            within = np.arange(int(np.prod(entry))).reshape(entry)
            values, kept = (row_keys, row_mask) if output.per == PER_ROW else (keys, mask)
            offset = number * (self._modulus // 2)
            found[output.name] = self._hash(_outer(values, within + offset), _outer(kept, np.zeros_like(within)))
        return found

    def _hash(self, keys: np.ndarray, mask: np.ndarray) -> np.ndarray:
        fractions = (keys * self._multiplier % self._modulus) / self._modulus
        numbers: np.ndarray = ((fractions * 2.0 - 1.0) * LOGIT_RANGE * mask).astype(np.float32)
        return numbers

    def close(self) -> None:
        """Nothing is held."""


def _outer(values: np.ndarray, entry: np.ndarray) -> np.ndarray:
    """The sums of each value with each number of an entry: the shape of ``values``, then that of ``entry``."""
    sums: np.ndarray = values.reshape(values.shape + (1,) * entry.ndim) + entry
    return sums


def _break(kind: str) -> None:
    if kind == "exit":
        os._exit(9)
    elif kind == "abort":
        os.abort()
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        time.sleep(3600)
    raise BackendFailed(f"the echo backend was told to fail ({kind})")
