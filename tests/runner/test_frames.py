import socket
import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.runner.frames import Channel, packed, receive_blocking


def received(channel, count):
    messages = []
    while len(messages) < count:
        messages += list(channel.receive() or ())
    return messages


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.integers(1, 64))
@example([bytes(300)] * 8, 1)
def test_messages_arrive_whole_however_they_are_cut(messages, piece):
    mine, its = socket.socketpair()
    channel = Channel(mine)
    data = b"".join(map(packed, messages))

    def send() -> None:
        for first in range(0, len(data), piece):
            its.sendall(data[first : first + piece])

    # A socket holds a few hundred small pieces that nobody has read: the kernel counts some 700 bytes for each.
    sender = threading.Thread(target=send)
    sender.start()
    assert received(channel, len(messages)) == messages
    sender.join()
    its.close()
    assert channel.receive() is None
    channel.close()


def test_a_peer_that_does_not_read_stops_nobody():
    mine, its = socket.socketpair()
    channel = Channel(mine)
    large = np.arange(2_000_000)
    channel.send(large)
    assert channel.has_unsent
    found = []
    reader = threading.Thread(target=lambda: found.append(receive_blocking(its)))
    reader.start()
    while channel.has_unsent:
        channel.flush()
    reader.join()
    assert (found[0] == large).all()
    channel.close()
    its.close()


def test_nothing_is_received_before_it_is_there():
    mine, its = socket.socketpair()
    channel = Channel(mine)
    assert list(channel.receive()) == []
    its.sendall(packed("message")[:5])
    assert list(channel.receive()) == []
    channel.close()
    its.close()


def test_sending_to_a_peer_that_is_gone_is_left_to_the_reader():
    mine, its = socket.socketpair()
    channel = Channel(mine)
    its.close()
    channel.send("lost")
    assert not channel.has_unsent
    assert channel.receive() is None
    channel.close()


def test_the_end_of_a_blocking_socket():
    mine, its = socket.socketpair()
    mine.close()
    with pytest.raises(EOFError):
        receive_blocking(its)
    its.close()
