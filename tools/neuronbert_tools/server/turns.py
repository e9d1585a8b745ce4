"""Contenders take turns: each is asked once a round, in the same order, with nothing else running."""

from typing import Callable, Dict, List, Mapping

from neuronbert_tools.console import print_message

Turn = Callable[[], Dict[str, float]]  # one contender's figures of a round
Samples = Dict[str, List[Dict[str, float]]]  # by contender, round after round


def in_rounds(turns: Mapping[str, Turn], rounds: int) -> Samples:
    """The figures of each contender, each of which is told as it comes."""
    samples: Samples = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            samples[name].append(turn())
            print_message(f"round {number + 1}: {name}: {samples[name][-1]}")
    return samples
