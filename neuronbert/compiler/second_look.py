"""Asks both sides again where an FP32 variant disagrees with the reference (gate.py): which of them changed its answer?

Two FP32 engines differ by rounding. A larger difference is a variant that computes something else, or a machine that
does not compute the same thing twice; only asking again tells them apart.
"""

import json
import os
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np

from neuronbert.backends.base import Session, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.compiler.gate import Gate, row_differences
from neuronbert.errors import GateRefused
from neuronbert.hardware.machine import environment
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF

# In the evidence; a variant that computes something else differs in every window.
KEPT_WINDOWS = 20
REFERENCE = "the FP32 reference"
HINT = (
    "the same command again; if it happens again, the machine's memory (memtest86) or an engine is at fault: "
    "neuronbert doctor, and report it with the evidence"
)


class Testimony(NamedTuple):
    """The answers of both sides to the same windows, then and now."""

    windows: Sequence[int]  # their numbers among the gate's
    reference: Sequence[Outputs]
    reference_again: Sequence[Outputs]
    variant: Sequence[Outputs]
    variant_again: Sequence[Outputs]  # by the same session, with its streams busy
    variant_alone: Sequence[Outputs]  # by another load, with a single stream

    def changes(self, name: str) -> Dict[str, float]:
        """Who changed its answer, and by how much at most: the reference, the variant ``name``, both or nobody."""
        by_whom = {
            REFERENCE: row_differences(self.reference_again, self.reference),
            name: np.maximum(
                row_differences(self.variant_again, self.variant), row_differences(self.variant_alone, self.variant)
            ),
        }
        return {who: float(np.max(by)) for who, by in by_whom.items() if _exceeds(by).any()}


def _exceeds(differences: np.ndarray) -> np.ndarray:
    """Where the differences are more than rounding; NaN is."""
    return np.asarray(~(differences <= FP32_MAX_ABS_DIFF))


def second_look(
    gate: Gate,
    variant: Mapping[str, Any],
    answers: Sequence[Outputs],
    session: Session,
    plan: ThroughputPlan,
    alone: Callable[[], ContextManager[Session]],
) -> List[str]:
    """For an FP32 ``variant`` whose ``answers`` differ: what to add to the refusal; nothing where no window differs.

    ``alone`` loads the variant once more, with a single stream. Raises GateRefused when a side changed its answer:
    then this machine's compilation proves nothing, whichever of the two was right. Inputs, answers, versions and
    facts of the machine are kept in a file that the sentence or the error names.
    """
    if not _exceeds(row_differences(answers, gate.expected)).any():
        return []
    testimony = _hear(gate, answers, session, plan, alone)
    changes = testimony.changes(variant["name"])
    sentence = _sentence(testimony, changes, len(gate.rows), variant["name"])
    where = _keep(gate, testimony, {"variant": dict(variant), "plan": plan._asdict(), "verdict": sentence})
    if changes:
        raise GateRefused(f"{sentence}. Nothing compiled here can be trusted. {where}", hint=HINT)
    return [f"{sentence}. {where}"]


def _hear(
    gate: Gate,
    answers: Sequence[Outputs],
    session: Session,
    plan: ThroughputPlan,
    alone: Callable[[], ContextManager[Session]],
) -> Testimony:
    again = gate.answers(session, plan)
    doubtful = _exceeds(row_differences(answers, gate.expected)) | _exceeds(row_differences(again, answers))
    windows = np.flatnonzero(doubtful).tolist()
    with alone() as other:
        by_itself = gate.one_by_one(other, plan._replace(streams=1), windows)

    def of(outputs: Sequence[Outputs]) -> List[Outputs]:
        return [outputs[number] for number in windows]

    reference_again = gate.reference_again(windows)
    return Testimony(windows, of(gate.expected), reference_again, of(answers), of(again), by_itself)


def _sentence(testimony: Testimony, changes: Mapping[str, float], rows: int, name: str) -> str:
    windows = f"{len(testimony.windows)} of {rows} windows"
    if not changes:
        return f"both sides said the same again of the {windows} in which they differ"
    by = " and ".join(f"{who} changed its answer by {most:.2g}" for who, most in changes.items())
    kept = [who for who in (REFERENCE, name) if who not in changes]
    return f"asked again about {windows}, {by}" + "".join(f", {who} did not" for who in kept)


def _keep(gate: Gate, testimony: Testimony, facts: Mapping[str, Any]) -> str:
    """Write the evidence to a new file among the temporary ones; a sentence that says where it is."""
    arrays = _arrays(gate, testimony)
    document = {
        **facts,
        "windows": list(testimony.windows),
        "kept_windows": list(testimony.windows[:KEPT_WINDOWS]),
        "time": datetime.now(timezone.utc).isoformat(),
        "load_average": os.getloadavg(),
        "machine": environment(),
    }
    try:
        with tempfile.NamedTemporaryFile(prefix="neuronbert-gate-", suffix=".npz", delete=False) as file:
            np.savez(file, facts=np.array(json.dumps(document, default=str)), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        return f"The evidence could not be kept: {error}"
    return f"The evidence is in {Path(file.name)}"


def _arrays(gate: Gate, testimony: Testimony) -> Dict[str, np.ndarray]:
    """``NUMBER/WHAT`` → array for each window kept: its inputs, and the five answers."""
    arrays: Dict[str, np.ndarray] = {}
    sides = testimony._asdict()
    for position, number in enumerate(testimony.windows[:KEPT_WINDOWS]):
        row = gate.rows[number]
        arrays[f"{number}/input_ids"] = np.asarray(row.input_ids, dtype=np.int64)
        arrays[f"{number}/token_type_ids"] = np.asarray(row.token_type_ids, dtype=np.int64)
        for side in Testimony._fields[1:]:
            for name, array in sides[side][position].items():
                arrays[f"{number}/{side}/{name}"] = array
    return arrays
