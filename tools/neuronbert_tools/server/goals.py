"""What a figure should be: a goal in a report, and the lines of a table for a person."""

import statistics
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence


class Goal(NamedTuple):
    """A figure with the least or the most that it should be."""

    what: str
    value: float
    bound: float
    is_least: bool  # else the most

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.is_least else self.value <= self.bound

    def document(self) -> Dict[str, Any]:
        """As it is in a report."""
        return {**self._asdict(), "met": self.met}


def goal_lines(goals: Sequence[Goal]) -> List[str]:
    """A line for each."""
    return [
        f"{'met' if goal.met else 'MISSED':<7} {goal.what}: {goal.value:.4g}, at "
        f"{'least' if goal.is_least else 'most'} {goal.bound:g}"
        for goal in goals
    ]


def medians(rounds: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    """Of each figure, over the rounds; all of them have the first one's figures."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def table(medians_of: Mapping[str, Mapping[str, float]]) -> List[str]:
    """A line for each contender, with its figures by name."""
    return [
        f"{contender:<28} " + "  ".join(f"{name} {value:,.1f}" for name, value in figures.items())
        for contender, figures in medians_of.items()
    ]
