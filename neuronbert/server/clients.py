"""Who asks: the keys that let a client in, and how many rows each client has waiting."""

import hashlib
import hmac
from collections import Counter
from typing import Callable, Mapping, Optional, Sequence, Tuple
from typing import Counter as CounterOf

from neuronbert.errors import counted
from neuronbert.server.failures import HttpError, retry_headers

_BEARER = b"bearer "
Wait = Callable[[], Optional[float]]


class Clients:
    """Lets clients in by their keys, and shares the queue among them.

    keys: none lets everybody in, each by its address. most_rows: of one client, waiting or with a worker; None: no
    limit but the queue's.
    """

    def __init__(self, keys: Sequence[str], most_rows: Optional[int]):
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._tenants = {f"key {number}": digest for number, digest in enumerate(self._digests)}
        self._most_rows = most_rows
        self._rows: CounterOf[str] = Counter()

    def identify(self, headers: Mapping[bytes, bytes], address: Optional[Tuple[str, int]]) -> str:
        """The client's name in this process; HttpError 401 without a key that is one of ours.

        Every key is compared, by digests of one length and in constant time: how long it takes tells nothing.
        """
        if not self._digests:
            return address[0] if address else "local"
        given = _given_key(headers)
        digest = hashlib.sha256(given or b"").digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if given is None or not any(matches):
            what = "no API key was sent" if given is None else "this API key is not one of the server's"
            raise HttpError(
                401,
                what,
                hint="the header Authorization: Bearer KEY",
                headers=((b"www-authenticate", b'Bearer realm="neuronbert"'),),
            )
        return f"key {matches.index(True)}"

    def tenant(self, client: str) -> bytes:
        """What tells clients with other keys apart, in every server that has the key; empty where there are no keys."""
        return self._tenants.get(client, b"")

    def holding(self, client: str, rows: int, wait_s: Wait = lambda: None) -> "_Held":
        """Count ``rows`` as the client's from now to the end of the block that is given what this returns.

        ``wait_s``: how long what waits will take, if it is known.
        HttpError 429 for more than one client may have, and 413 for more than it ever may: no use in asking again.
        """
        most = self._most_rows
        if most is not None and rows > most:
            raise HttpError(
                413,
                f"this request needs {counted(rows, 'row')}, and one client may have {most:,} waiting",
                hint="fewer or shorter inputs in each request",
            )
        if most is not None and self._rows[client] + rows > most:
            raise HttpError(
                429,
                f"{counted(self._rows[client], 'row')} of this client wait, and {rows:,} more would be above its "
                f"{most:,}",
                hint="fewer requests at once",
                headers=retry_headers(wait_s()),
            )
        self._rows[client] += rows
        return _Held(self, client, rows)

    def give_back(self, client: str, rows: int) -> None:
        """They are the client's no longer."""
        self._rows[client] -= rows
        if not self._rows[client]:
            del self._rows[client]


class _Held:
    """Rows of a client's, given back at the end of the block."""

    def __init__(self, clients: Clients, client: str, rows: int):
        self._held = clients, client, rows

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        clients, client, rows = self._held
        clients.give_back(client, rows)


def _given_key(headers: Mapping[bytes, bytes]) -> Optional[bytes]:
    """The key of a request; some clients have a header of their own for it."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get(b"x-api-key")
