"""Keys, and each client's share of the queue."""

from contextlib import ExitStack
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.server.clients import Clients
from neuronbert.server.failures import HttpError

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(st.lists(KEYS, min_size=1, max_size=4, unique=True), KEYS, st.sampled_from(["authorization", "x-api-key"]))
def test_a_key_lets_in_whoever_has_it(keys: List[str], given: str, header: str) -> None:
    clients = Clients(keys, None)
    value = f"Bearer {given}" if header == "authorization" else given
    headers = {header.encode(): value.encode()}
    if given in keys:
        assert clients.identify(headers, ("10.0.0.1", 7)) == f"key {keys.index(given)}"
        return
    with pytest.raises(HttpError) as refused:
        clients.identify(headers, None)
    assert refused.value.http_status == 401
    assert len(given) < 4 or given not in refused.value.message


@given(st.dictionaries(st.sampled_from([b"authorization", b"x-api-key"]), st.binary(max_size=20)))
def test_no_other_header_lets_anybody_in(headers: dict) -> None:
    clients = Clients(["a-key-of-more-than-twenty-bytes"], None)
    with pytest.raises(HttpError):
        clients.identify(headers, ("10.0.0.1", 7))


def test_without_keys_a_client_is_its_address() -> None:
    clients = Clients([], None)
    assert clients.identify({}, ("10.0.0.1", 7)) == clients.identify({b"x-api-key": b"any"}, ("10.0.0.1", 8))
    assert clients.identify({}, None) == "local"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 8)), max_size=20), st.integers(1, 10))
def test_no_client_has_more_rows_than_its_share(asks: List[Tuple[str, int]], most: int) -> None:
    clients = Clients([], most)
    held = {"a": 0, "b": 0}
    with ExitStack() as stack:
        for client, rows in asks:
            try:
                stack.enter_context(clients.holding(client, rows))
            except HttpError as refused:
                assert held[client] + rows > most
                assert refused.http_status == (413 if rows > most else 429)
                assert bool(refused.headers) == (rows <= most)  # when to ask again, where that can help
            else:
                held[client] += rows
                assert held[client] <= most
    with clients.holding("a", most), clients.holding("b", most):  # all was given back
        pass


def test_who_has_too_many_rows_is_told_when_there_are_fewer() -> None:
    clients = Clients([], 4)
    with clients.holding("a", 4), pytest.raises(HttpError) as refused:
        with clients.holding("a", 1, lambda: 7.25):
            pass
    assert dict(refused.value.headers) == {b"retry-after": b"8", b"retry-after-ms": b"7250"}
