"""What the caller tokenised becomes a batch of its own."""

import numpy as np
import pytest

from neuronbert.engine.encoded import encoded_batch


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64])
def test_a_batch_shares_no_memory_with_what_was_given(kind, order):
    given = [np.ones((2, 3), kind, order=order) for _ in range(3)]
    batch = encoded_batch(*given)
    for mine, part in zip(given, batch):
        mine[:] = 7
        assert part.dtype == np.int64 and part.flags.c_contiguous and (part == 1).all()


def test_a_batch_shares_no_memory_with_a_tensor():
    torch = pytest.importorskip("torch")
    given = torch.ones((2, 3), dtype=torch.int64)
    batch = encoded_batch(given)
    given[:] = 7
    assert (batch.input_ids == 1).all()
