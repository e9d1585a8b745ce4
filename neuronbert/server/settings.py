"""What a server is told when it is made: where it listens, whom it lets in, how much it takes and how long it waits."""

import os
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.errors import UsageError, above_zero, count_of, not_below_zero, positive, shown_value, yes_or_no

MIB = 1 << 20
LOG_FORMATS = ("text", "json")
NAME_HINT = "letters, digits, and . _ - behind the first, such as NAME=ARTIFACT"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class Placed(NamedTuple):
    """An artifact's folder under the name that requests call it."""

    name: str
    folder: str


@dataclass(frozen=True)
class ServerSettings:
    """The options of ``serve`` that are not a Runner's; UsageError for one that cannot be.

    host, port: where it listens; port 0 is any free one.
    api_key: keys, one of which a request must bring; none: everybody is let in.
    ssl_keyfile, ssl_certfile: for TLS, both or neither.
    max_body_bytes: of a request, unpacked. max_head_bytes: of its request line and headers together.
    max_rows_per_request: rows (windows) that one request may need, of all its inputs together.
    max_rows_per_client: rows that one client (a key, or without keys an address) may have waiting; None: as many as the
        queue takes.
    request_timeout_s: for a request that does not say how long it waits; None: as long as it takes.
    head_timeout_s: for a request's head to arrive. body_timeout_s: for its body, and a second more for each kilobyte.
    keep_alive_s: how long a connection may idle between requests.
    grace_s: how long requests are taken after SIGTERM, while readiness says no: balancers need that to look elsewhere.
    drain_timeout_s: how long accepted requests may take after that.
    allow_reload: whether requests and SIGHUP may put artifacts in place.
    log_format: "text" or "json". access_log: whether a line is written for each request. trace: whether traces are
        sent to where OpenTelemetry's variables say.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: Tuple[str, ...] = ()
    ssl_keyfile: Optional[str] = None
    ssl_certfile: Optional[str] = None
    max_body_bytes: int = 16 * MIB
    max_head_bytes: int = 65_536
    max_rows_per_request: int = 256
    max_rows_per_client: Optional[int] = None
    request_timeout_s: Optional[float] = None
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    grace_s: float = 5.0
    drain_timeout_s: float = 20.0
    allow_reload: bool = False
    log_format: str = "text"
    access_log: bool = True
    trace: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            check = _CHECKS.get(field.name)
            if check is not None:
                object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise UsageError("TLS needs a key and a certificate", hint="--ssl-keyfile FILE --ssl-certfile FILE")
        for name in ("ssl_keyfile", "ssl_certfile"):
            path = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                raise UsageError(f"{name} {path} cannot be read", hint="a PEM file that this user may read")


def _port(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 65_536:
        raise UsageError(f"{name} must be a whole number from 0 to 65535, not {shown_value(value)}", hint="--port 8080")
    return value


def _keys(name: str, value: Any) -> Tuple[str, ...]:
    keys = tuple(value)
    for key in keys:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"{name}: a key must be of visible ASCII characters, and one of these is not",
                hint="python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one",
            )
    return keys


def _log_format(name: str, value: Any) -> str:
    if value not in LOG_FORMATS:
        raise UsageError(f"there is no {name} {shown_value(value)}", hint=f"one of {', '.join(LOG_FORMATS)}")
    return str(value)


def _seconds_or_none(name: str, value: Any) -> Optional[float]:
    return None if value is None else above_zero(name, value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "port": _port,
    "api_key": _keys,
    "max_body_bytes": count_of,
    "max_head_bytes": count_of,
    "max_rows_per_request": count_of,
    "max_rows_per_client": positive,
    "request_timeout_s": _seconds_or_none,
    "head_timeout_s": above_zero,
    "body_timeout_s": above_zero,
    "keep_alive_s": above_zero,
    "grace_s": not_below_zero,
    "drain_timeout_s": not_below_zero,
    "allow_reload": yes_or_no,
    "log_format": _log_format,
    "access_log": yes_or_no,
    "trace": yes_or_no,
}


def places_of(artifacts: Sequence[str]) -> Tuple[Placed, ...]:
    """What ``ARTIFACT`` and ``NAME=ARTIFACT`` say, in order; a folder without a name is called as it is itself.

    UsageError for a name that two have, or that cannot be in a URL.
    """
    places: Dict[str, Placed] = {}
    for given in artifacts:
        place = _place_of(given)
        if not place.name or not _NAME_CHARACTERS.issuperset(place.name) or place.name[0] in ".-":
            raise UsageError(f"{place.name!r} cannot be the name of a model in a URL", hint=NAME_HINT)
        if place.name in places:
            raise UsageError(
                f"{place.folder} and {places[place.name].folder} would both be called {place.name!r}", hint=NAME_HINT
            )
        places[place.name] = place
    if not places:
        raise UsageError("there is nothing to serve", hint="neuronbert serve ARTIFACT")
    return tuple(places.values())


def _place_of(given: str) -> Placed:
    name, equals, folder = given.partition("=")
    # A folder may have = in its path; nobody would take what stands before a / for a name.
    if equals and "/" not in name and not os.path.exists(given):
        return Placed(name, folder)
    return Placed(os.path.basename(os.path.abspath(given)), given)
