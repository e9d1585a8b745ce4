"""How far the self-test of a variant that ran nowhere may be off: enough for 16 bits, too little for a dead device."""

from typing import Dict

import numpy as np
import pytest

from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output, max_difference
from neuronbert.compiler.self_test import unmeasured_tolerance

OUTPUTS = (Output("start_logits", PER_TOKEN), Output("score", PER_ROW))


def stored(seed: int) -> Dict[str, np.ndarray]:
    """Arrays as selftest.npz has them: 4 rows of 16 tokens, the last 6 of them padding with wild logits."""
    random = np.random.default_rng(seed)
    mask = np.ones((4, 16), np.int64)
    mask[:, 10:] = 0
    logits = random.normal(0, 4, (4, 16)).astype(np.float32)
    logits[:, 10:] = 1e4
    inputs = {"input_ids": np.ones_like(mask), "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    return {**inputs, "start_logits": logits, "score": random.normal(0, 4, (4, 2)).astype(np.float32)}


@pytest.mark.parametrize("seed", range(20))
def test_sixteen_bits_pass_and_constant_outputs_do_not(seed: int) -> None:
    arrays = stored(seed)
    expected = {output.name: arrays[output.name] for output in OUTPUTS}
    tolerance = unmeasured_tolerance(arrays, OUTPUTS)
    # bfloat16 keeps 8 significant bits of a float32: the upper half of it.
    rounded = {name: (array.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, array in expected.items()}
    assert max_difference(rounded, expected, OUTPUTS, arrays["attention_mask"]) < tolerance
    for constant in (0.0, float(np.median(arrays["start_logits"][:, :10]))):
        dead = {name: np.full_like(array, constant) for name, array in expected.items()}
        assert max_difference(dead, expected, OUTPUTS, arrays["attention_mask"]) > 2 * tolerance
