"""Inputs encoded together, and which of them an error names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import InputError
from neuronbert.tasks.encoding import encode_each, encode_together


class EvenOnly:
    """A task whose examples are the inputs themselves, and that refuses odd numbers."""

    def __init__(self):
        self.encoded = []

    def encode(self, tokenizer, inputs, options):
        self.encoded.append(list(inputs))
        for asked in reversed(inputs):  # which one it complains of first is its own affair
            if asked % 2:
                raise InputError(f"{asked} is odd")
        return list(inputs)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 3))
def test_the_error_is_of_the_first_at_fault(inputs, first):
    task = EvenOnly()
    at_fault = [number for number, asked in enumerate(inputs) if asked % 2]
    if not at_fault:
        assert encode_together(task, None, inputs, None, first) == inputs
        assert task.encoded == [inputs]
        return
    with pytest.raises(InputError) as caught:
        encode_together(task, None, inputs, None, first)
    alone = len(inputs) == 1 and first == 0
    place = "" if alone else f"inputs[{first + at_fault[0]}]: "
    assert caught.value.message == f"{place}{inputs[at_fault[0]]} is odd"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_each_has_its_example_or_its_error(inputs):
    outcomes = encode_each(EvenOnly(), None, inputs, None)
    assert [str(outcome) if asked % 2 else outcome for asked, outcome in zip(inputs, outcomes)] == [
        f"{asked} is odd" if asked % 2 else asked for asked in inputs
    ]
