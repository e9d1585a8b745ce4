"""The FP32 reference: as many rows at once as it has threads, and torch as it was afterwards."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tiny_source import random_batch

from neuronbert.backends.reference import ROW_BY_ROW, ReferenceSession, one_thread_each
from neuronbert.engine.batches import infer_concurrently
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.task import OUTPUTS

torch = pytest.importorskip("torch")


class TokenRow(NamedTuple):
    input_ids: np.ndarray
    token_type_ids: np.ndarray


def test_rows_side_by_side_are_as_exact_as_one_after_the_other(tiny_checkpoint: Path) -> None:
    model = load_checkpoint(str(tiny_checkpoint)).torch_model()
    batches = [random_batch(1, tokens, seed=tokens) for tokens in range(5, 60)]
    rows = [TokenRow(batch.input_ids[0] % 70, batch.token_type_ids[0]) for batch in batches]
    threads_before = torch.get_num_threads()
    answered = {}
    for threads in (1, 4):
        session = ReferenceSession(model, OUTPUTS, threads=threads)
        assert session.concurrency == threads
        with one_thread_each():
            assert torch.get_num_threads() == 1
            answered[threads] = infer_concurrently(session, rows, OUTPUTS, ROW_BY_ROW, pad_id=0)
        session.close()
        assert torch.get_num_threads() == threads_before
    for alone, beside in zip(answered[1], answered[4]):
        for output in OUTPUTS:
            np.testing.assert_array_equal(alone[output.name], beside[output.name])


def test_torch_gets_its_threads_back_after_an_error() -> None:
    threads_before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread_each():
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads_before
