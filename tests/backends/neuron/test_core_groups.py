"""How many cores the variables give a process, and how threads share them."""

import threading
import time

import pytest

from neuronbert.backends.neuron.core_groups import CoreGroups, core_variables, cores_given
from neuronbert.errors import UsageError


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, None),
        ({"NEURON_RT_VISIBLE_CORES": "2"}, 1),
        ({"NEURON_RT_VISIBLE_CORES": "4-7"}, 4),
        ({"NEURON_RT_NUM_CORES": "3"}, 3),
        ({"NEURON_RT_NUM_CORES": "0"}, None),
        ({"NEURON_RT_NUM_CORES": "0", "NEURONCORE_GROUP_SIZES": "1,1"}, None),  # all, by placer.cc
        ({"NEURON_RT_NUM_CORES": "1,1"}, 2),  # parallel-ncgs.rst
        ({"NEURON_RT_NUM_CORES": "2", "NEURONCORE_GROUP_SIZES": "1,1,1,1"}, 2),  # aws-neuron-tensorflow, placer.cc
        ({"NEURONCORE_GROUP_SIZES": "1,1,1,1"}, 4),
        ({"NEURONCORE_GROUP_SIZES": "4", "NEURON_RT_VISIBLE_CORES": "0-3"}, 4),
        ({"NEURON_RT_VISIBLE_CORES": "0-1", "NEURON_RT_NUM_CORES": "4"}, 2),
    ],
)
def test_cores_of_a_process(variables, cores):
    assert cores_given(core_variables({**variables, "HOME": "/"})) == cores


@pytest.mark.parametrize(
    "variables",
    [{"NEURON_RT_VISIBLE_CORES": "3-1"}, {"NEURON_RT_NUM_CORES": "all"}, {"NEURONCORE_GROUP_SIZES": "1,x"}],
)
def test_nonsense_is_named(variables):
    with pytest.raises(UsageError, match=f"{next(iter(variables))}=.* means nothing"):
        cores_given(variables)


def test_requests_go_to_the_least_busy_group_and_wait_when_all_are_full():
    groups = CoreGroups(2, in_flight=1)
    order = []
    with groups.taken() as first:
        with groups.taken() as second:
            assert {first, second} == {0, 1}
            waiting = threading.Thread(target=lambda: order.append(_enter(groups)))
            waiting.start()
            time.sleep(0.05)
            assert order == []
        waiting.join(60)
    assert order == [second]


def test_a_group_can_be_asked_for():
    groups = CoreGroups(3, in_flight=2)
    with groups.taken(2) as one, groups.taken(2) as other, groups.taken() as free:
        assert (one, other, free) == (2, 2, 0)


def _enter(groups):
    with groups.taken() as group:
        return group
