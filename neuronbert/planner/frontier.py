"""What costs least at each latency, and what others have published: the data of a plan's picture (picture.py).

Pure: configurations, prices and published rows in, their figures out. planning.py puts them into the plan.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.hardware.gpu_model import GpuKind, PublishedRow, gpu_sizes, published_rows
from neuronbert.hardware.prices import Price, PriceBook
from neuronbert.planner.configurations import Configuration

# MLPerf's stricter target; the rows that keep 99 % of FP32's F1 are in 8 bits, and a plan's predictions are for 16.
ACCURACY_TARGET = 0.999


class PublishedCost(NamedTuple):
    """What a published row costs: as it was published, or at the price of the cheapest instance of its kind of GPU."""

    row: PublishedRow
    usd_per_million: float
    instance_type: str  # empty where the cost was published
    price: Optional[Price]

    @property
    def basis(self) -> str:
        """What the dollars rest on."""
        return f"at {self.price.usd_per_hour:g} USD/h of {self.instance_type}" if self.price else "as published"

    def as_dict(self) -> Dict[str, Any]:
        """Plain JSON data."""
        row = self.row
        return {
            "name": row.name, "gpu": row.kind.name, "gpus": row.gpus, "model": row.model, "tokens": row.tokens,
            "precision": row.precision, "throughput_per_gpu": row.per_gpu_per_s, "latency_ms_p95": row.p95_ms,
            "cost_per_1m_inf": float(f"{self.usd_per_million:.5g}"), "cost_basis": self.basis,
            "price": self.price._asdict() if self.price else None, "source": row.source,
        }  # fmt: skip


def cost_frontier(ranked: Sequence[Configuration]) -> List[Configuration]:
    """Of ``ranked``, by growing p95, those that cost less than everything that answers as soon; unpriced ones never.

    A p95 counts to two digits, for predictions are no more exact, and nothing should be on the frontier by a hair.
    """
    found: List[Configuration] = []
    for one in sorted(filter(_priced, ranked), key=_latency_then_cost):
        if not found or _cost(one) < _cost(found[-1]):
            found.append(one)
    return found


def _priced(configuration: Configuration) -> bool:
    return configuration.usd_per_million is not None


def _cost(configuration: Configuration) -> float:
    assert configuration.usd_per_million is not None
    return configuration.usd_per_million


def _latency_then_cost(configuration: Configuration) -> Tuple[float, float]:
    return float(f"{configuration.p95_ms:.2g}"), _cost(configuration)


def published_costs(book: PriceBook) -> List[PublishedCost]:
    """The published rows in 16 bits or at MLPerf's stricter target, cheapest first."""
    rows = (row for row in published_rows() if row.accuracy_target in (None, ACCURACY_TARGET))
    return sorted((_cost_of(row, book) for row in rows), key=lambda one: one.usd_per_million)


def _cost_of(row: PublishedRow, book: PriceBook) -> PublishedCost:
    if row.usd_per_million is not None:
        return PublishedCost(row, row.usd_per_million, "", None)
    name, gpus = _cheapest(row.kind, book)
    price = book.price(name)
    return PublishedCost(row, price.per_million(gpus * row.per_gpu_per_s), name, price)


def _cheapest(kind: GpuKind, book: PriceBook) -> Tuple[str, int]:
    """The instance type whose GPUs of ``kind`` cost least each, and how many it has."""
    sizes = [size for size in gpu_sizes().values() if size.kind == kind]
    best = min(sizes, key=lambda size: book.price(size.instance_type).usd_per_hour / size.gpus)
    return best.instance_type, best.gpus
