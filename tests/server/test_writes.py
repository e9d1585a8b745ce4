"""What is written in one turn of the loop goes out as one piece, in order, and nothing is kept longer or lost."""

import asyncio
from typing import Any, List

import pytest

from neuronbert.server.writes import MOST_GATHERED_BYTES, GatheredWrites


class Transport:
    """Keeps what it is told to send."""

    def __init__(self) -> None:
        self.sent: List[bytes] = []
        self.ended = ""

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.sent.append(data)

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def get_write_buffer_size(self) -> int:
        return 7

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


def in_loop(use: Any) -> Transport:
    async def run() -> Transport:
        transport = Transport()
        use(transport, GatheredWrites(transport, asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return transport

    return asyncio.run(run())


def test_head_and_body_are_one_piece() -> None:
    def use(transport: Transport, gathered: GatheredWrites) -> None:
        for part in (b"head", b"body", b""):
            gathered.write(part)
        assert transport.sent == [] and gathered.get_write_buffer_size() == 7 + 8

    assert in_loop(use).sent == [b"headbody"]


def test_later_turns_have_their_own_pieces() -> None:
    async def run() -> List[bytes]:
        transport = Transport()
        gathered = GatheredWrites(transport, asyncio.get_running_loop())
        for part in (b"first", b"second"):
            gathered.write(part)
            await asyncio.sleep(0)
        return transport.sent

    assert asyncio.run(run()) == [b"first", b"second"]


def test_much_is_sent_at_once_so_that_the_transport_can_say_stop() -> None:
    def use(transport: Transport, gathered: GatheredWrites) -> None:
        gathered.write(b"head")
        gathered.write(b"x" * MOST_GATHERED_BYTES)
        assert [len(piece) for piece in transport.sent] == [4 + MOST_GATHERED_BYTES]
        assert gathered.get_write_buffer_size() == 7

    assert len(in_loop(use).sent) == 1


@pytest.mark.parametrize(("end", "sent"), [("close", [b"last words"]), ("abort", []), ("forget", [])])
def test_what_was_written_before_the_end(end: str, sent: List[bytes]) -> None:
    def use(transport: Transport, gathered: GatheredWrites) -> None:
        gathered.write(b"last words")
        getattr(gathered, end)()
        assert gathered.is_closing() == (end != "forget")

    transport = in_loop(use)
    assert transport.sent == sent


def test_all_else_is_the_transports() -> None:
    def use(transport: Transport, gathered: GatheredWrites) -> None:
        assert gathered.get_extra_info("peername") == "its peername"

    in_loop(use)
