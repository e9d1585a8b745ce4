import os
import selectors
import threading

import pytest

from neuronbert.runner.inbox import Drain, Inbox


@pytest.fixture()
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.close()


def test_messages_come_out_in_order_with_those_that_come_meanwhile(inbox):
    inbox.put(Drain(1.0))
    taken = []
    for message in inbox.messages():
        taken.append(message.drain_s)
        if len(taken) < 3:
            inbox.put(Drain(taken[-1] + 1))
    assert taken == [1.0, 2.0, 3.0]
    assert not inbox


def test_a_message_wakes_the_thread_that_sleeps(inbox):
    selector = selectors.DefaultSelector()
    selector.register(inbox.wake_descriptor, selectors.EVENT_READ)
    assert inbox.may_sleep()
    putting = threading.Thread(target=inbox.put, args=(Drain(0.0),))
    putting.start()
    assert selector.select(30.0)
    putting.join()
    inbox.woke_up()
    inbox.read_wake_up()
    assert not inbox.may_sleep()
    assert not selector.select(0)
    selector.close()


def test_whoever_is_awake_is_not_woken(inbox):
    selector = selectors.DefaultSelector()
    selector.register(inbox.wake_descriptor, selectors.EVENT_READ)
    inbox.put(Drain(0.0))
    assert not selector.select(0)
    selector.close()


def test_what_comes_after_the_end_is_not_written_into_another_file(tmp_path):
    """The number of a descriptor that was closed is the next one's."""
    inbox = Inbox()
    assert inbox.may_sleep()
    descriptors = {inbox.wake_descriptor, inbox._wake_writing}
    inbox.close()
    files = [open(tmp_path / str(number), "wb+", buffering=0) for number in range(2)]
    try:
        assert {file.fileno() for file in files} == descriptors
        inbox.put(Drain(0.0))
        assert [file.seek(0, os.SEEK_END) for file in files] == [0, 0]
    finally:
        for file in files:
            file.close()
