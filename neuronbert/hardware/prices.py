"""What an instance costs an hour, where and when that was so; the planner, the benchmark and ``cores`` ask here.

``prices.json`` is the price book that ships with the package. A user's own file has the same form and goes before it:
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
# A machine that is nobody's instance type: it has a price when the user's file gives one.
THIS_MACHINE = "this machine"


class Price(NamedTuple):
    """What an instance cost an hour, where and when that was so, and who said it."""

    usd_per_hour: float
    region: str
    date: str  # year-month
    source: str

    def sentence(self) -> str:
        """The part that must stand beside every figure in dollars."""
        return f"at {self.usd_per_hour:g} USD/h in {self.region}, {self.date} ({self.source})"

    def per_million(self, throughput_per_s: float) -> float:
        """Dollars for a million inferences at ``throughput_per_s``: price / (throughput * 3600) * 1e6."""
        return self.usd_per_hour / (throughput_per_s * 3600) * 1e6


class PriceBook:
    """The prices of each instance type, the one that counts first."""

    def __init__(self, prices: Mapping[str, Tuple[Price, ...]]):
        self._prices = dict(prices)

    @property
    def names(self) -> List[str]:
        """Every instance type that has a price."""
        return list(self._prices)

    def __contains__(self, name: str) -> bool:
        return name in self._prices

    def history(self, name: str) -> Tuple[Price, ...]:
        """All prices of ``name``, the one that counts first; UsageError for an instance type without one."""
        if name not in self._prices:
            raise UsageError(
                f"there is no price for {name!r}; there is one for {', '.join(self._prices)}",
                hint=f"one of these; --prices FILE changes them, and may price {THIS_MACHINE!r}",
            )
        return self._prices[name]

    def price(self, name: str) -> Price:
        """The price of ``name`` that counts."""
        return self.history(name)[0]


@functools.lru_cache(maxsize=1)
def shipped_prices() -> PriceBook:
    """The price book of the package: on demand, us-east-1, dated."""
    document = json.loads(PRICES_PATH.read_text(encoding="utf-8"))
    return PriceBook(_merged(_list_prices(one) for one in document["lists"]))


def load_prices(path: Optional[Union[str, Path]] = None) -> PriceBook:
    """The shipped price book, with the prices of the file at ``path`` before its own.

    InputError for a file that is not such a list, for prices that are not positive numbers, and for an instance type
    that neither the shipped book knows nor is "this machine": a misspelt name must not leave the old price standing.
    """
    shipped = shipped_prices()
    if path is None:
        return shipped
    own = _merged(_list_prices(one, str(path)) for one in _read_lists(path))
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


_EXAMPLE = (
    '{"schema_version": 1, "lists": [{"region": "us-east-1", "date": "2026-01", "source": "our contract", '
    '"usd_per_hour": {"inf1.xlarge": 0.15}}]}'
)


def _list_prices(one: Any, path: str = PRICES_PATH.name) -> Dict[str, Tuple[Price, ...]]:
    """One list of a price file: every price of it has the same region, date and source."""
    wanted = ("region", "date", "source")
    if not isinstance(one, dict) or not isinstance(one.get("usd_per_hour"), dict):
        raise InputError(f"{path} has a list without usd_per_hour", hint=_EXAMPLE)
    missing = [name for name in wanted if not isinstance(one.get(name), str) or not one[name]]
    if missing:
        raise InputError(f"{path} has a list without {', '.join(missing)}: a price needs them", hint=_EXAMPLE)
    for name, value in one["usd_per_hour"].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            raise InputError(f"{path}: the price of {name} must be dollars an hour above 0, not {value!r}")
    return {name: (Price(float(value), *(one[key] for key in wanted)),) for name, value in one["usd_per_hour"].items()}


def _merged(parts: Iterable[Mapping[str, Tuple[Price, ...]]]) -> Dict[str, Tuple[Price, ...]]:
    merged: Dict[str, Tuple[Price, ...]] = {}
    for part in parts:
        for name, prices in part.items():
            merged[name] = merged.get(name, ()) + prices
    return merged
