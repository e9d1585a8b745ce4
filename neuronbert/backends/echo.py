"""A backend without a model: outputs that are a fixed function of the token ids, for tests of everything around it.

Its file may also name ``faults``, {token id: "exit" | "abort" | "hang" | "raise"}, which a batch with that token
provokes, and ``batch_s``, seconds that a batch takes: failures for the runner to survive, and a device of known speed.
"""

import json
import os
import time
from pathlib import Path
from typing import Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, ExportResult, ExportSource, Recipe, ThroughputPlan, Variant
from neuronbert.backends.outputs import PER_ROW, Output, Outputs
from neuronbert.errors import BackendFailed, BackendUnavailable

PRECISIONS: Tuple[str, ...] = ("fp32",)
STATIC_SHAPES = False
REQUIREMENTS: Mapping[str, str] = {}
DEVICE = "cpu"
AUTO_RANK: Optional[int] = None  # it has no model
FILE_NAME = "echo.json"

# A multiplicative hash: the prime keeps neighbouring ids apart, the modulus (also prime) bounds the logits.
MULTIPLIER = 7919
MODULUS = 1009
LOGIT_RANGE = 10.0


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
    """Write the two numbers of the hash, so that an artifact has a file to check."""
    (folder / FILE_NAME).write_text(json.dumps({"multiplier": MULTIPLIER, "modulus": MODULUS}) + "\n", encoding="utf-8")
    return ExportResult(batch_invariant=True, requires={"device": "cpu"}, versions={}, recipe=dict(recipe))


def load(folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> "EchoSession":
    """Read the hash back. Raises BackendFailed when its file is not what ``export`` wrote."""
    try:
        settings = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        faults = {int(token): str(kind) for token, kind in settings.get("faults", {}).items()}
        batch_s = float(settings.get("batch_s", 0.0))
        return EchoSession(
            int(settings["multiplier"]), int(settings["modulus"]), streams, faults, batch_s, outputs=outputs
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendFailed(f"cannot read {folder / FILE_NAME}: {error}", hint="compile the artifact again") from error


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
    ):
        self.concurrency = concurrency
        self._outputs = tuple(outputs)
        self._faults = faults
        self._batch_s = batch_s
        self._multiplier = multiplier
        self._modulus = modulus

    def run(self, batch: Batch) -> Outputs:
        """Numbers in [-LOGIT_RANGE, LOGIT_RANGE), float32 [rows, tokens], or [rows] of the first token."""
        for token, kind in self._faults.items():
            if (batch.input_ids == token).any():
                _break(kind)
        if self._batch_s:
            time.sleep(self._batch_s)
        keys = batch.input_ids * 2 + batch.token_type_ids + np.arange(batch.input_ids.shape[1])
        outputs: Outputs = {}
        for number, output in enumerate(self._outputs):
            hashed = self._hash(keys + number * (self._modulus // 2), batch.attention_mask)
            outputs[output.name] = hashed[:, 0] if output.per == PER_ROW else hashed
        return outputs

    def _hash(self, keys: np.ndarray, mask: np.ndarray) -> np.ndarray:
        fractions: np.ndarray = (keys * self._multiplier % self._modulus) / self._modulus
        logits: np.ndarray = (fractions * 2.0 - 1.0) * LOGIT_RANGE * mask
        return logits.astype(np.float32)

    def close(self) -> None:
        """Nothing is held."""


def _break(kind: str) -> None:
    if kind == "exit":
        os._exit(9)
    elif kind == "abort":
        os.abort()
    elif kind == "hang":
        time.sleep(3600)
    raise BackendFailed(f"the echo backend was told to fail ({kind})")
