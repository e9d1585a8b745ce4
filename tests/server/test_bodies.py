"""Bodies come in parts, and of those whose rest is still to come there is a bound."""

import asyncio
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.server.bodies import IncomingBody, Unfinished
from neuronbert.server.failures import ClientGone, HttpError

MOST = 64


async def read(parts: List[bytes], unfinished: Unfinished, client: str = "a", *, is_whole: bool = True) -> bytes:
    messages: List[Dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages += [{"type": "http.request"} if is_whole else {"type": "http.disconnect"}]
    left = iter(messages)

    async def receive() -> Dict[str, Any]:
        return next(left)

    return await IncomingBody(receive, {}, unfinished).unpacked(MOST, client)


@given(st.lists(st.binary(max_size=40), max_size=4), st.booleans())
def test_all_of_it_is_read_or_nothing_stays_counted(parts: List[bytes], is_whole: bool) -> None:
    unfinished, body = Unfinished(8 * MOST), b"".join(parts)
    try:
        assert asyncio.run(read(parts, unfinished, is_whole=is_whole)) == body
        assert is_whole and len(body) <= MOST
    except HttpError as error:
        assert error.http_status == 413 and len(body) > MOST
    except ClientGone:
        assert not is_whole
    unfinished.add("a", 2 * MOST)  # all that there may be


def test_those_that_are_slow_do_not_fill_the_memory_nor_keep_the_others_out() -> None:
    unfinished = Unfinished(400)
    unfinished.add("slow", 90)
    with pytest.raises(HttpError) as refused:
        asyncio.run(read([b"x" * 10, b"x"], unfinished, "slow"))
    assert refused.value.http_status == 429 and dict(refused.value.headers)[b"retry-after"] == b"1"
    assert asyncio.run(read([b"x" * 40], unfinished, "other")) == b"x" * 40
    for client in ("second", "third"):
        unfinished.add(client, 100)
    unfinished.add("fourth", 90)
    with pytest.raises(HttpError):
        asyncio.run(read([b"x" * 40], unfinished, "other"))
    unfinished.remove("slow", 90)
    assert asyncio.run(read([b"x" * 40], unfinished, "other")) == b"x" * 40
