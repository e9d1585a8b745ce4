"""What an instance costs an hour, where and when that was so; the planner, the benchmark and cores.py ask here.

``prices.json`` is the price book that ships with the package. A user's own file has the same form and takes precedence:
{"schema_version": 1, "lists": [{"region": "eu-west-1", "date": "2026-01", "source": "our contract",
"usd_per_hour": {"inf1.xlarge": 0.15}}]}
"""

import functools
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

from neuronbert.errors import InputError, UsageError, refuse_no_path
from neuronbert.hardware.schema import NUMBER, TEXT, Form, Schema, list_of, object_of, record, shown
from neuronbert.hardware.untrusted import Refusal, json_object, read_given, refuse_unfit

PRICES_PATH = Path(__file__).with_name("prices.json")
SCHEMA_VERSION = 1
# The name of a machine that is no instance type: it has a price when the user's file gives it one.
THIS_MACHINE = "this machine"
_EXAMPLE = (
    '{"schema_version": 1, "lists": [{"region": "us-east-1", "date": "2026-01", "source": "our contract", '
    '"usd_per_hour": {"inf1.xlarge": 0.15}}]}'
)
REFUSAL = Refusal(InputError, f"--prices FILE.json, which holds {_EXAMPLE}")
_SAID: Form = {**TEXT, "minLength": 1}
_DOLLARS: Form = {**NUMBER, "minimum": 1e-6, "maximum": 1e6}
_LIST = record({"region": _SAID, "date": _SAID, "source": _SAID, "usd_per_hour": object_of(_DOLLARS)})
_LISTS = Schema(**record({"lists": list_of(_LIST)}))


class Price(NamedTuple):
    """What an instance cost an hour, where and when that was so, and who said it."""

    usd_per_hour: float
    region: str
    date: str  # year-month
    source: str

    def sentence(self) -> str:
        """What must be said beside every figure in dollars."""
        return f"at {self.usd_per_hour:g} USD/h in {self.region}, {self.date} ({self.source})"

    def per_million(self, throughput_per_s: float) -> float:
        """Dollars for a million inferences at ``throughput_per_s`` inferences a second."""
        return self.usd_per_hour / (throughput_per_s * 3600) * 1e6


class PriceBook:
    """The prices of each instance type, first the one in force."""

    def __init__(self, prices: Mapping[str, Tuple[Price, ...]]):
        self._prices = dict(prices)

    @property
    def names(self) -> List[str]:
        """Every instance type that has a price."""
        return list(self._prices)

    def __contains__(self, name: str) -> bool:
        return name in self._prices

    def history(self, name: str) -> Tuple[Price, ...]:
        """All prices of ``name``, first the one in force; UsageError for an instance type without a price."""
        if name not in self._prices:
            raise UsageError(
                f"there is no price for {name!r}; there is one for {', '.join(self._prices)}",
                hint=f"one of these; --prices FILE changes them, and may price {THIS_MACHINE!r}",
            )
        return self._prices[name]

    def price(self, name: str) -> Price:
        """The price of ``name`` in force; UsageError for an instance type without a price."""
        return self.history(name)[0]


@functools.lru_cache(maxsize=1)
def shipped_prices() -> PriceBook:
    """The price book of the package: on demand, us-east-1, dated."""
    return PriceBook(_prices_in(PRICES_PATH))


def load_prices(path: Optional[Union[str, Path]] = None) -> PriceBook:
    """The shipped price book, with the prices of the file at ``path`` before its own.

    Raises InputError for a file of another form, for prices that are not positive numbers, and for a name that is
    neither in the shipped book nor "this machine": a misspelt one must not leave the old price in force.
    """
    shipped = shipped_prices()
    if path is None:
        return shipped
    refuse_no_path("prices", path)
    own = _prices_in(Path(path))
    known = [*shipped.names, THIS_MACHINE]
    unknown = [name for name in own if name not in known]
    if unknown:
        raise InputError(
            f"{path} prices {', '.join(map(repr, unknown))}, which is no instance type known here",
            hint=f"one of {', '.join(known)}",
        )
    return PriceBook(_merged([own, {name: shipped.history(name) for name in shipped.names}]))


def _prices_in(path: Path) -> Dict[str, Tuple[Price, ...]]:
    """All prices of the file at ``path``, those of its earlier lists first."""
    document = json_object(read_given(path, REFUSAL), str(path), REFUSAL)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise REFUSAL.of(
            f"{path} is not a price file: schema_version is {shown(version)}, and {SCHEMA_VERSION} is wanted"
        )
    refuse_unfit(document, str(path), _LISTS, REFUSAL)
    return _merged(_prices_of(price_list) for price_list in document["lists"])


def _prices_of(price_list: Mapping[str, Any]) -> Dict[str, Tuple[Price, ...]]:
    """The prices in one list of a price file, which all have its region, date and source."""
    region, date, source = (price_list[name] for name in ("region", "date", "source"))
    return {name: (Price(float(value), region, date, source),) for name, value in price_list["usd_per_hour"].items()}


def _merged(parts: Iterable[Mapping[str, Tuple[Price, ...]]]) -> Dict[str, Tuple[Price, ...]]:
    """All prices of each name, those of earlier parts first."""
    merged: Dict[str, Tuple[Price, ...]] = {}
    for part in parts:
        for name, prices in part.items():
            merged[name] = merged.get(name, ()) + prices
    return merged
