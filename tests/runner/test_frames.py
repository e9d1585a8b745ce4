import socket
import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuronbert.backends.base import Batch
from neuronbert.runner.frames import Channel, packed, reader_of, receive_blocking
from neuronbert.runner.messages import BatchDone, BatchOrder

# Rows and tokens, rows, entries of a token: what a batch and its outputs have, and what there is none or but one of.
shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
tokens = shapes.flatmap(lambda shape: arrays.arrays(np.int64, shape))
NUMBERS = [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64, ">f4"]
outputs = arrays.arrays(st.sampled_from(NUMBERS), shapes)


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
    reader = threading.Thread(target=lambda: found.append(receive_blocking(reader_of(its))))
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
        receive_blocking(reader_of(its))
    its.close()


def sent(message):
    """``message`` as the other end reads it."""
    mine, its = socket.socketpair()
    with mine, its:
        mine.sendall(packed(message))
        return receive_blocking(reader_of(its))


def assert_same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable  # torch.from_numpy warns of one that is not


@given(st.integers(0, 1 << 62), st.tuples(tokens, tokens, tokens))
def test_a_batch_arrives_as_it_was(number, batch):
    found = sent(BatchOrder(number, Batch(*batch)))
    assert isinstance(found, BatchOrder) and isinstance(found.batch, Batch)
    assert found.number == number
    for array, expected in zip(found.batch, batch):
        assert_same(array, expected)


@given(st.lists(st.lists(st.integers(-(1 << 62), 1 << 62), min_size=2, max_size=2), min_size=1))
def test_so_does_what_is_wanted_of_its_outputs(wanted):
    rows = np.array(wanted)
    ids = np.ones((len(rows), 3), np.int64)
    found = sent(BatchOrder(1, Batch(ids, ids, ids), rows))
    assert isinstance(found.batch, Batch)
    assert_same(found.wanted, rows)
    assert sent(BatchOrder(1, Batch(ids, ids, ids))).wanted is None


@given(st.integers(0, 1 << 62), st.dictionaries(st.text(max_size=8), outputs, max_size=3), st.floats(0, 1e6))
def test_so_do_its_results(number, named, device_s):
    found = sent(BatchDone(number, named, device_s))
    assert isinstance(found, BatchDone)
    assert (found.number, found.device_s, list(found.outputs)) == (number, device_s, list(named))
    for name, expected in named.items():
        assert_same(found.outputs[name], expected)


@pytest.mark.parametrize("view", [np.s_[::2], np.s_[:, ::-1], np.s_[:, 1:3]])
def test_part_of_an_array_arrives_as_that_part(view):
    part = np.arange(24, dtype=np.float32).reshape(4, 6)[view]
    assert_same(sent(BatchDone(1, {"logits": part, "turned": part.T}, 0.0)).outputs["turned"], part.T.copy())


def test_what_may_not_be_written_here_may_be_there():
    logits = np.broadcast_to(np.float32(1.5), (2, 3))
    assert not logits.flags.writeable
    assert_same(sent(BatchDone(1, {"logits": logits}, 0.0)).outputs["logits"], logits)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array(["text"], dtype=object), "ndarray of object"),
        (np.zeros(2, [("start", np.float32), ("end", np.int64)]), r"ndarray of \[\('start'"),
        (np.ma.masked_array(np.zeros(2, np.float32), [True, False]), "MaskedArray of float32"),
        (np.zeros(2, "datetime64[s]"), r"ndarray of datetime64\[s\]"),
        (np.array(["text"]), "ndarray of <U4"),
    ],
)
def test_what_is_more_or_less_than_numbers_is_refused(array, said):
    """Objects would arrive as addresses, records without their fields, and masked entries as if they were none."""
    with pytest.raises(TypeError, match=f"^{said}.*: nothing but arrays of numbers can be sent to another process$"):
        packed(BatchDone(1, {"logits": array}, 0.0))
