"""What the tracing backends share: torch does not keep what was traced, and nobody's own modules suffer for it."""

import subprocess
import sys

import pytest

from neuronbert.backends.tracing import traces_forgotten

torch = pytest.importorskip("torch")


class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def traced():
    return torch.jit.trace(Doubling(), torch.ones(2))


# torch numbers the classes of one name that it still has. In a process of its own: nothing is forgotten beside a module
# that is in use, which another test may have.
FORGETTING = """
import torch
from neuronbert.backends.tracing import traces_forgotten

class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x

def name_of_a_new_trace():
    return torch.jit.trace(Doubling(), torch.ones(2))._c.qualified_name

first = name_of_a_new_trace()
assert name_of_a_new_trace() != first, "this is the leak"
with traces_forgotten():
    name_of_a_new_trace()
assert name_of_a_new_trace() == first
"""


def test_what_was_traced_is_forgotten():
    done = subprocess.run([sys.executable, "-c", FORGETTING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_in_use_keeps_its_methods():
    mine = traced()
    with traces_forgotten():
        traced()
    assert mine(torch.ones(2)).tolist() == [2.0, 2.0]
    assert torch.jit.freeze(mine.eval())(torch.ones(2)).tolist() == [2.0, 2.0]
