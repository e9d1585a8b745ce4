"""What an instance costs an hour, where and when that was so; the planner, the benchmark and cores.py ask here.

``prices.json`` is the price book that ships with the package. A user's own file has the same form and takes precedence:
{"schema_version": 1, "lists": [{"region": "eu-west-1", "date": "2026-01", "source": "our contract",
"usd_per_hour": {"inf1.xlarge": 0.15}}]}
"""

import functools
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

from neuronbert.errors import InputError, UsageError

PRICES_PATH = Path(__file__).with_name("prices.json")
SCHEMA_VERSION = 1
# The name of a machine that is no instance type: it has a price when the user's file gives it one.
THIS_MACHINE = "this machine"
_EXAMPLE = (
    '{"schema_version": 1, "lists": [{"region": "us-east-1", "date": "2026-01", "source": "our contract", '
    '"usd_per_hour": {"inf1.xlarge": 0.15}}]}'
)


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
    document = json.loads(PRICES_PATH.read_text(encoding="utf-8"))
    return PriceBook(_merged(_prices_of(price_list) for price_list in document["lists"]))


def load_prices(path: Optional[Union[str, Path]] = None) -> PriceBook:
    """The shipped price book, with the prices of the file at ``path`` before its own.

    Raises InputError for a file of another form, for prices that are not positive numbers, and for a name that is
    neither in the shipped book nor "this machine": a misspelt one must not leave the old price in force.
    """
    shipped = shipped_prices()
    if path is None:
        return shipped
    own = _merged(_prices_of(price_list, str(path)) for price_list in _read_lists(path))
    known = [*shipped.names, THIS_MACHINE]
    unknown = [name for name in own if name not in known]
    if unknown:
        raise InputError(
            f"{path} prices {', '.join(map(repr, unknown))}, which is no instance type known here",
            hint=f"one of {', '.join(known)}",
        )
    return PriceBook(_merged([own, {name: shipped.history(name) for name in shipped.names}]))


def _read_lists(path: Union[str, Path]) -> List[Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="--prices FILE.json") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", hint=_EXAMPLE) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION or not isinstance(document.get("lists"), list):
        raise InputError(
            f"{path} is not a price file: schema_version is {version!r}, and {SCHEMA_VERSION} with lists is wanted",
            hint=_EXAMPLE,
        )
    return list(document["lists"])


def _prices_of(price_list: Any, path: str = PRICES_PATH.name) -> Dict[str, Tuple[Price, ...]]:
    """The prices in one list of a price file, which all have its region, date and source."""
    wanted = ("region", "date", "source")
    if not isinstance(price_list, dict) or not isinstance(price_list.get("usd_per_hour"), dict):
        raise InputError(f"{path} has a list without usd_per_hour", hint=_EXAMPLE)
    missing = [name for name in wanted if not isinstance(price_list.get(name), str) or not price_list[name]]
    if missing:
        raise InputError(f"{path} has a list without {', '.join(missing)}: a price needs them", hint=_EXAMPLE)
    usd_per_hour = price_list["usd_per_hour"]
    for name, value in usd_per_hour.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            raise InputError(f"{path}: the price of {name} must be dollars an hour above 0, not {value!r}")
    region, date, source = (price_list[name] for name in wanted)
    return {name: (Price(float(value), region, date, source),) for name, value in usd_per_hour.items()}


def _merged(parts: Iterable[Mapping[str, Tuple[Price, ...]]]) -> Dict[str, Tuple[Price, ...]]:
    """All prices of each name, those of earlier parts first."""
    merged: Dict[str, Tuple[Price, ...]] = {}
    for part in parts:
        for name, prices in part.items():
            merged[name] = merged.get(name, ()) + prices
    return merged
