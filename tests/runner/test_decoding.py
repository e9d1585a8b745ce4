import sys
import threading
from queue import SimpleQueue

import pytest

from neuronbert.runner.decoding import Decoder
from neuronbert.runner.requests import Request


def request(finish):
    return Request(1, [], finish, submitted=0.0)


def test_results_are_made_in_one_thread_that_ends():
    made, threads = SimpleQueue(), []
    decoder = Decoder(made.put)
    for _ in range(3):
        decoder.begin(request(lambda outputs: threads.append(threading.current_thread()) or len(threads)))
    assert [made.get(timeout=30).result for _ in range(3)] == [1, 2, 3]
    decoder.end()
    assert len(set(threads)) == 1 and threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_the_end_of_a_decoder_that_was_never_needed():
    made = []
    Decoder(made.append).end()
    assert made == [] and "neuronbert-decoder" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("finish", [lambda outputs: 1 / 0, lambda outputs: sys.exit(3)])
def test_what_a_result_raises_does_not_end_the_thread(finish):
    made = SimpleQueue()
    decoder = Decoder(made.put)
    decoder.begin(request(finish))
    assert isinstance(made.get(timeout=30).error, (ZeroDivisionError, SystemExit))
    decoder.begin(request(len))
    assert made.get(timeout=30).result == 0
    decoder.end()


def test_where_no_thread_can_be_started_the_result_is_made_at_once(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    made = SimpleQueue()
    decoder = Decoder(made.put)
    decoder.begin(request(len))
    assert made.get(timeout=0).result == 0
    decoder.end()
