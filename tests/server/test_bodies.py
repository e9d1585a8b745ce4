"""Bodies come in parts, and of those whose rest is still to come there is a bound."""

import asyncio
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.server.bodies import IncomingBody, Unfinished
from neuronbert.server.failures import ClientGone, HttpError

MOST = 64


async def read(parts: List[bytes], unfinished: Unfinished, *, is_whole: bool = True) -> bytes:
    messages: List[Dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages += [{"type": "http.request"} if is_whole else {"type": "http.disconnect"}]
    left = iter(messages)

    async def receive() -> Dict[str, Any]:
        return next(left)

    return await IncomingBody(receive, {}, unfinished).unpacked(MOST)


@given(st.lists(st.binary(max_size=40), max_size=4), st.booleans())
def test_all_of_it_is_read_or_nothing_stays_counted(parts: List[bytes], is_whole: bool) -> None:
    unfinished, body = Unfinished(2 * MOST), b"".join(parts)
    try:
        assert asyncio.run(read(parts, unfinished, is_whole=is_whole)) == body
        assert is_whole and len(body) <= MOST
    except HttpError as error:
        assert error.http_status == 413 and len(body) > MOST
    except ClientGone:
        assert not is_whole
    unfinished.add(2 * MOST)  # all that there may be


def test_many_that_are_slow_do_not_fill_the_memory() -> None:
    unfinished = Unfinished(100)
    unfinished.add(80)  # of others
    assert asyncio.run(read([b"x" * 20], unfinished)) == b"x" * 20
    with pytest.raises(HttpError) as refused:
        asyncio.run(read([b"x" * 20, b"x"], unfinished))
    assert refused.value.http_status == 429 and dict(refused.value.headers)[b"retry-after"] == b"1"
    unfinished.remove(80)
    unfinished.add(100)
