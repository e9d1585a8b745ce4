"""What the tracing backends share: torch does not keep what was traced, and nobody's own modules suffer for it."""

import pytest

from neuronbert.backends.tracing import traces_forgotten

torch = pytest.importorskip("torch")


class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def traced():
    return torch.jit.trace(Doubling(), torch.ones(2))


def name_of_a_new_trace() -> str:
    """torch numbers the classes of one name that it still has."""
    return str(traced()._c.qualified_name)


def test_what_was_traced_is_forgotten():
    with traces_forgotten():
        pass
    first = name_of_a_new_trace()
    assert name_of_a_new_trace() != first  # that is the leak
    with traces_forgotten():
        traced()
    assert name_of_a_new_trace() == first


def test_a_module_that_is_in_use_keeps_its_methods():
    mine = traced()
    with traces_forgotten():
        traced()
    assert mine(torch.ones(2)).tolist() == [2.0, 2.0]
    assert torch.jit.freeze(mine.eval())(torch.ones(2)).tolist() == [2.0, 2.0]
