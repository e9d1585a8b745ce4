"""What a server is told when it is made: where it listens, whom it lets in, how much it takes and how long it waits."""

import os
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.errors import (
    UsageError,
    above_zero,
    count_of,
    in_words,
    not_below_zero,
    positive,
    shown_value,
    yes_or_no,
)
from neuronbert.tasks.option import option

LOG_FORMATS = ("text", "json")
REDIS_SCHEMES = ("redis", "rediss", "unix")
LEAST_SECRET = 16  # characters
_SECRET_HINT = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
NAME_HINT = "letters, digits, and . _ - behind the first, such as NAME=ARTIFACT"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class Placed(NamedTuple):
    """An artifact's folder under the name that requests call it."""

    name: str
    folder: str


@dataclass(frozen=True)
class ServerSettings:
    """The options of ``serve`` that are not a Runner's, each with what the command line says of it.

    UsageError for one that cannot be.
    """

    host: str = option("127.0.0.1", "Where to listen; 0.0.0.0 for everywhere.", shows_default=True)
    port: int = option(8080, "The port to listen at; 0 is any free one.", least=0, shows_default=True)
    api_key: Tuple[str, ...] = option(
        (),
        "A key that requests must bring (Authorization: Bearer KEY); repeatable. Better in the variable, with spaces "
        "between several: other users of the machine see a command line.",
    )
    ssl_keyfile: Optional[str] = option(None, "For TLS: a private key in PEM.")
    ssl_certfile: Optional[str] = option(None, "For TLS: the certificate of --ssl-keyfile, in PEM.")
    max_rows_per_request: int = option(
        256, "Rows (windows) that one request may need, of all its inputs together.", least=1, shows_default=True
    )
    max_rows_per_client: Optional[int] = option(
        None, "Rows that one client (a key, or an address) may have waiting.  [default: what the queue takes]", least=1
    )
    max_body_bytes: int = option(
        16 << 20, "Bytes that a request's body may have, unpacked; of /v1/bulk each line.", least=1, shows_default=True
    )
    max_head_bytes: int = option(
        65_536, "Bytes that a request's first line and headers may have together.", least=1, shows_default=True
    )
    request_timeout_s: Optional[float] = option(None, "How long requests wait that do not say it themselves.")
    head_timeout_s: float = option(
        10.0, "In which a request's headers must arrive, and TLS' handshake end.", shows_default=True
    )
    body_timeout_s: float = option(
        30.0,
        "In which a request's body must arrive, or 1 KiB for each second of it, and again as much in the next.",
        shows_default=True,
    )
    keep_alive_s: float = option(75.0, "How long a connection may idle.", shows_default=True)
    grace_s: float = option(
        5.0, "How long it goes on after SIGTERM, for balancers to notice that it is not ready.", shows_default=True
    )
    drain_timeout_s: float = option(
        20.0, "How long accepted requests may take to be finished, once no more are taken.", shows_default=True
    )
    allow_reload: bool = option(
        False, "POST /v2/repository/models/NAME/load, and SIGHUP, put what is in the folders then in place."
    )
    cache_bytes: Optional[int] = option(
        None, "Keep answers, in so much memory, for requests that ask the same.  [default: keep none]", least=0
    )
    cache_ttl_s: float = option(3600.0, "How long an answer is kept in the cache.", shows_default=True)
    cache_url: Optional[str] = option(None, "A Redis (redis://HOST:PORT/DB) in which servers share their caches.")
    cache_secret: Optional[str] = option(
        None,
        "What the answers in --cache-url are signed with, the same for all servers. Better in the variable: other "
        "users of the machine see a command line.",
    )
    log_format: str = option("text", "The format of the log, on stderr.", choices=LOG_FORMATS, shows_default=True)
    access_log: bool = option(
        True, "A line in the log for each request, but a monitor's that found all well.", shows_default=True
    )
    trace: bool = option(False, "Send traces to where OTEL_EXPORTER_OTLP_ENDPOINT says (the extra trace).")

    def __post_init__(self) -> None:
        for field in fields(self):
            check = _CHECKS.get(field.name)
            if check is not None:
                object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise UsageError("TLS needs a key and a certificate", hint="--ssl-keyfile FILE --ssl-certfile FILE")
        if self.ssl_certfile is not None and self.ssl_keyfile is not None:
            _refuse_no_certificate(self.ssl_certfile, self.ssl_keyfile)
        if self.cache_url is not None:
            self._refuse_half_a_shared_cache()

    def _refuse_half_a_shared_cache(self) -> None:
        if not self.cache_bytes:
            raise UsageError(
                "cache_url is of a cache behind the server's own, and that is off", hint="--cache-bytes 100000000"
            )
        if self.cache_secret is None:
            raise UsageError(
                "cache_url needs a secret, with which the answers in it are signed",
                hint=f"NEURONBERT_CACHE_SECRET; {_SECRET_HINT}",
            )


def _refuse_no_certificate(certificate: str, key: str) -> None:
    """UsageError unless both files can be read, are PEM, and belong together: before any model is loaded."""
    for path in (certificate, key):
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise UsageError(f"{path} cannot be read", hint="a PEM file that this user may read")
    import ssl  # here, so that --help does not wait for it

    try:
        # Nobody is there to type a password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{certificate} and {key} are no certificate with its private key: {in_words(error)}",
            hint="both in PEM, the key without a password: openssl pkey -in KEY -out KEY-WITHOUT",
        ) from None


def settings_of(options: Mapping[str, Any]) -> ServerSettings:
    """The settings of these options; UsageError for one that there is not."""
    names = [field.name for field in fields(ServerSettings)]
    for name in options:
        if name not in names:
            raise UsageError(f"there is no option {name!r}", hint=f"one of {', '.join(names)}")
    return ServerSettings(**options)


def _port(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 65_536:
        raise UsageError(f"{name} must be a whole number from 0 to 65535, not {shown_value(value)}", hint="--port 8080")
    return value


def _keys(name: str, value: Any) -> Tuple[str, ...]:
    keys = tuple(value)
    for key in keys:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"{name}: a key must be of visible ASCII characters, and one of these is not", hint=_SECRET_HINT
            )
    return keys


def _bytes_or_none(name: str, value: Any) -> Optional[int]:
    return None if value == 0 else positive(name, value)


def _url_of_redis(name: str, value: Any) -> Optional[str]:
    if value is None:
        return None
    scheme, separator, _ = str(value).partition("://")
    if not separator or scheme not in REDIS_SCHEMES:  # the whole URL may hold a password
        raise UsageError(
            f"{name} must begin with one of {', '.join(f'{each}://' for each in REDIS_SCHEMES)}",
            hint="redis://127.0.0.1:6379/0",
        )
    return str(value)


def _secret(name: str, value: Any) -> Optional[str]:
    if value is not None and len(value) < LEAST_SECRET:
        raise UsageError(f"{name} has {len(value)} characters, and {LEAST_SECRET} are the least", hint=_SECRET_HINT)
    return None if value is None else str(value)


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
    "cache_bytes": _bytes_or_none,
    "cache_ttl_s": above_zero,
    "cache_url": _url_of_redis,
    "cache_secret": _secret,
    "log_format": _log_format,
    "access_log": yes_or_no,
    "trace": yes_or_no,
}


def places_of(artifacts: Sequence[str]) -> Tuple[Placed, ...]:
    """What ``ARTIFACT`` and ``NAME=ARTIFACT`` say, in order; without a name it is that of the folder.

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
