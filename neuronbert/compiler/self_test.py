"""What a load is tested with (engine/loading.py): inputs with their FP32 outputs, and how far it may be from them."""

from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

import numpy as np

from neuronbert.artifact.manifest import SELFTEST_NAME
from neuronbert.backends.base import Batch, Session
from neuronbert.backends.outputs import PER_TOKEN, Output, max_difference
from neuronbert.checkpoint.config import write_config
from neuronbert.engine.batches import collate
from neuronbert.errors import BackendFailed
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF, Example

SELFTEST_ROWS = 4


def selftest_arrays(examples: Sequence[Example], reference: Session, pad_id: int) -> Dict[str, np.ndarray]:
    """Inputs (the shortest rows, padded to one length) and their FP32 outputs, as ``selftest.npz`` stores them.

    BackendFailed as of ``answered_twice``.
    """
    rows = sorted((row for example in examples for row in example.windows), key=lambda row: len(row.input_ids))
    return answered_twice(collate(rows[:SELFTEST_ROWS], pad_id), reference)


def answered_twice(batch: Batch, reference: Session) -> Dict[str, np.ndarray]:
    """The inputs and what an FP32 ``reference`` makes of them.

    It is asked twice, for no later check would find it wrong: BackendFailed if it changes its answer.
    """
    first, second = reference.run(batch), reference.run(batch)
    most = float(np.max([np.abs(second[name] - first[name]).max() for name in first]))
    if most > FP32_MAX_ABS_DIFF:  # not for NaN, which the gate refuses by name
        raise BackendFailed(
            f"the FP32 reference answers the self-test twice, and the logits differ by {most:.2g}",
            hint="the same command again; if it happens again, neuronbert doctor, and a test of the machine's memory",
        )
    return {**batch._asdict(), **first}


def save_self_test(folder: Path, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Write what every load is tested with, and beside it the config of the model that gave it."""
    write_config(folder, config)
    np.savez(folder / SELFTEST_NAME, **arrays)  # type: ignore[arg-type]  # for numpy 2, one could be allow_pickle


def selftest_batch(arrays: Mapping[str, np.ndarray]) -> Batch:
    """The inputs among the arrays that ``selftest_arrays`` made."""
    return Batch(*(arrays[name] for name in Batch._fields))


def selftest_tolerance(arrays: Mapping[str, np.ndarray], session: Session, outputs: Sequence[Output]) -> float:
    """How far a load's self-test may be from the FP32 reference, from the outputs of ``session`` where it was compiled.

    Twice the difference measured here and a twentieth of the outputs' range leave room for another CPU's kernels; a
    dead runtime, with constant outputs, is off by the range itself.
    """
    batch = selftest_batch(arrays)
    expected = {output.name: arrays[output.name] for output in outputs}
    measured = max_difference(session.run(batch), expected, outputs, batch.attention_mask)
    return 2 * measured + _spread(arrays, outputs) / 20


def unmeasured_tolerance(arrays: Mapping[str, np.ndarray], outputs: Sequence[Output]) -> float:
    """The same of a variant that ran nowhere yet: a fifth of the outputs' range.

    Constant outputs are off by half the range or more, a 16-bit model by a few hundredths of it.
    """
    return _spread(arrays, outputs) / 5


def _spread(arrays: Mapping[str, np.ndarray], outputs: Sequence[Output]) -> float:
    """The range of the FP32 outputs, the smallest of them, without padding."""
    real = selftest_batch(arrays).attention_mask.astype(bool)
    return min(
        float(np.ptp(arrays[output.name][real] if output.per == PER_TOKEN else arrays[output.name]))
        for output in outputs
    )
