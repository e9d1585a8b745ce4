import io
import socket
from contextlib import suppress

import numpy as np
import pytest

from neuronbert import Engine
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import row_of
from neuronbert.engine.batches import infer_rows
from neuronbert.engine.lines import answer_lines
from neuronbert.errors import BackendFailed, DeviceLost, InputError
from neuronbert.runner import worker_process
from neuronbert.runner.blocks import Block, Rules
from neuronbert.runner.frames import packed, reader_of, receive_blocking
from neuronbert.runner.messages import (
    BatchFailed,
    BatchOrder,
    BlockDone,
    BlockOrder,
    BlockStep,
    LoadFailed,
    WorkerReady,
)
from neuronbert.runner.requests import Row
from neuronbert.runner.worker_process import Worker
from neuronbert.tasks.base import option_kinds, options_of
from neuronbert.tasks.lines import json_entries, json_line
from neuronbert.tasks.question_answering import spans
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.question_answering.lines import question_line
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.spans import spans_in
from neuronbert.tasks.question_answering.task import OUTPUTS

ORDER = BatchOrder(7, Batch(*[np.ones((1, 4), np.int64)] * 3))


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not even that")


class Session:
    """Raises what it is told to."""

    def __init__(self, error):
        self.error = error

    def run(self, batch):
        raise self.error


@pytest.fixture()
def worker():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Worker(theirs)


@pytest.mark.parametrize("error", [SystemExit(3), ZeroDivisionError("oops"), Unprintable(), KeyboardInterrupt()])
def test_whatever_a_session_raises_is_an_answer(worker, error):
    worker._session = Session(error)
    answer = worker._run(ORDER)
    assert isinstance(answer, BatchFailed) and answer.number == 7
    assert isinstance(answer.error, BackendFailed) and type(error).__name__ in answer.error.message


def test_a_lost_device_is_no_answer_and_ends_the_process(monkeypatch, capsys):
    """Its batch comes back with the next process, which has the device again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(theirs)
        worker._session = Session(DeviceLost("CUDA error: device-side assert triggered"))
        with pytest.raises(DeviceLost):
            worker._run(ORDER)

        def end(code):
            raise Ended(code)

        monkeypatch.setattr(worker_process.os, "_exit", end)
        ours.sendall(packed(ORDER))
        with pytest.raises(Ended) as ended:
            worker._run_or_end()
        assert ended.value.args == (1,)
        assert "device-side assert" in capsys.readouterr().err  # for whoever reads the log
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


class OddSession:
    """Passes a self-test of another shape, and then returns something else."""

    def __init__(self, outputs):
        self.outputs = outputs

    def run(self, batch):
        return self.outputs


ODD_OUTPUTS = [
    ({}, "start_logits no array"),
    ({"start_logits": np.ones((1, 4)), "end_logits": np.ones((1, 3))}, r"end_logits the shape \(1, 3\)"),
    ({"start_logits": np.ones((2, 4)), "end_logits": np.ones((2, 4))}, r"start_logits the shape \(2, 4\)"),
    ({"start_logits": np.ones((1, 4)), "end_logits": np.ones((1, 4, 2))}, r"end_logits the shape \(1, 4, 2\)"),
    ({"start_logits": np.float32(1), "end_logits": np.ones((1, 4))}, r"start_logits the shape \(\)"),
]


@pytest.mark.parametrize(("outputs", "said"), ODD_OUTPUTS)
def test_outputs_of_other_shapes_are_this_batch_s_failure(worker, outputs, said):
    """Cut into rows in the runner's thread, they ended the runner."""
    worker._session, worker._outputs = OddSession(outputs), OUTPUTS
    answer = worker._run(ORDER)
    assert isinstance(answer, BatchFailed)
    with pytest.raises(BackendFailed, match=f"the model gave {said} for a batch of 1 × 4 tokens"):
        raise answer.error


WANTED = np.array([[0, 1, 0, 3, 2, 2, 0]])


@pytest.mark.parametrize("wanted", [None, WANTED])
def test_so_are_outputs_that_are_no_numbers(engine, wanted):
    """They ended the worker, and then the next one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(theirs)
        logits = np.array([["one", "two", "three", "four"]], dtype=object)
        worker._session, worker._outputs = OddSession({"start_logits": logits, "end_logits": logits}), OUTPUTS
        worker._engine = engine
        ours.sendall(packed(ORDER._replace(wanted=wanted)))
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            worker._run_received()
        answer = receive_blocking(reader_of(ours))
    assert isinstance(answer, BatchFailed) and answer.number == 7
    assert "ndarray of object: nothing but arrays of numbers" in answer.error.message


@pytest.mark.parametrize(("outputs", "said"), ODD_OUTPUTS)
def test_so_they_are_without_a_runner(outputs, said):
    row = Row(np.ones(4, np.int64), np.ones(4, np.int64))
    with pytest.raises(BackendFailed, match=f"the model gave {said} for a batch of 1 × 4 tokens"):
        infer_rows(OddSession(outputs), [row], OUTPUTS, ThroughputPlan(1, 8, 4096), 0)


@pytest.fixture(scope="module")
def engine(echo_artifact):
    with Engine(echo_artifact, threads=1) as engine:
        yield engine


def block_order(engine, lines, on_error="fail"):
    """The order for a block of these JSON lines."""
    options = options_of(option_kinds(question_answering), {})
    columns = question_answering.columns({}, options[1])
    rules = Rules("jsonl", "jsonl", *options, columns, on_error, engine.plan)
    return BlockOrder(7, Block([*json_entries(enumerate(lines, 1))], rules))


def answers_to(order, engine):
    """What a worker with this engine sends back."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(theirs)
        worker._engine, worker._session, worker._outputs = engine, engine.session, engine.specs
        ours.sendall(packed(order))
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            worker._run_received()
        theirs.shutdown(socket.SHUT_WR)
        reader, found = reader_of(ours), []
        with suppress(EOFError):
            while True:
                found.append(receive_blocking(reader))
    return found


@pytest.mark.parametrize("wanted_rows", [[0, 1, 2], [1], [0, 2], []])
def test_of_some_rows_only_what_is_wanted_is_sent(engine, wanted_rows):
    (example,) = engine.encode([("Who?", "Jim Henson built the first Kermit. " * 40)], WindowOptions(64, 8))
    rows = example.windows[:3]
    ids, types = (np.stack([getattr(row, name) for row in rows]) for name in ("input_ids", "token_type_ids"))
    numbers = spans.wanted_of(example, AnswerOptions())
    wanted = np.array([(row, *numbers[row]) for row in wanted_rows]) if wanted_rows else None
    (done,) = answers_to(BatchOrder(7, Batch(ids, np.ones_like(ids), types), wanted), engine)
    (plain,) = answers_to(BatchOrder(7, Batch(ids, np.ones_like(ids), types)), engine)
    sent = dict(done.outputs)
    if len(wanted_rows) < len(rows):
        for output in OUTPUTS:
            rest = [row for row in range(len(rows)) if row not in wanted_rows]
            np.testing.assert_array_equal(sent.pop(output.name), plain.outputs[output.name][rest])
    assert sorted(sent) == (sorted(output.name for output in spans.OUTPUTS) if wanted_rows else [])
    for place, row in enumerate(wanted_rows):
        left, logits = row_of(sent, spans.OUTPUTS, place, 64), row_of(plain.outputs, OUTPUTS, row, 64)
        found, expected = (spans_in(rows[row], outputs, AnswerOptions()) for outputs in (left, logits))
        assert found.starts.tolist() == expected.starts.tolist() and found.ends.tolist() == expected.ends.tolist()
        assert repr(found[2:]) == repr(expected[2:])  # of the document ranking there is nan


def test_a_block_comes_back_as_its_part_of_the_output_with_a_step_for_each_batch(engine):
    lines = [question_line(f"What is {number}?", "Jim Henson. " * (1 + number % 90)) for number in range(20)]
    lines[4:4] = ["", "{broken"]
    *steps, done = answers_to(block_order(engine, lines, "skip"), engine)
    assert isinstance(done, BlockDone) and done.number == 7
    answered, skipped = answer_lines(
        engine, io.BytesIO("\n".join(lines).encode()), *options_of(option_kinds(question_answering), {}), "skip"
    )
    assert done.part.data.decode() == "".join(map(json_line, answered))
    assert (done.part.answered, done.part.skipped, done.part.unsaid) == (20, skipped, [])
    assert all(isinstance(step, BlockStep) and step.number == 7 and step.tokens <= step.rows * step.width
               for step in steps)  # fmt: skip
    rows = sum(step.rows for step in steps)
    assert len(steps) > 2 and rows >= 20
    assert [step.share for step in steps] == [sum(one.rows for one in steps[:n]) / rows
                                              for n in range(1, len(steps) + 1)]  # fmt: skip


def test_a_block_with_a_line_at_fault_is_not_answered_as_a_whole(engine, monkeypatch):
    good = question_line("Who?", "Jim Henson.")
    (failed,) = answers_to(block_order(engine, [good, "{broken"]), engine)
    assert isinstance(failed, BatchFailed) and isinstance(failed.error, InputError) and failed.number == 7
    assert failed.error.message.startswith("line 2: not JSON")
    monkeypatch.setattr(engine, "_soonest", engine._soonest._replace(session=Session(ZeroDivisionError("oops"))))
    (failed,) = answers_to(block_order(engine, [good]), engine)
    assert isinstance(failed, BatchFailed) and isinstance(failed.error, BackendFailed)


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize(("error", "code"), [(EOFError(), 0), (MemoryError(), 1), (SystemExit(0), 1)])
def test_a_thread_that_cannot_go_on_ends_the_process(worker, monkeypatch, error, code):
    """The batch that it holds would never come back, while the others go on."""

    def end(code):
        raise Ended(code)

    def stop():
        raise error

    monkeypatch.setattr(worker_process.os, "_exit", end)
    monkeypatch.setattr(worker, "_run_received", stop)
    with pytest.raises(Ended) as ended:
        worker._run_or_end()
    assert ended.value.args == (code,)


def test_a_worker_that_cannot_have_its_threads_says_so_before_it_is_given_anything(worker, monkeypatch):
    """It said that it was ready and died of it, and the request that it was given by then was called poison."""
    started, sent = [], []

    def start(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)

    ready = WorkerReady(1, "echo-fp32", ThroughputPlan(4, 8, 4096), concurrency=4, parallel=4, load_s=0.1)
    monkeypatch.setattr(worker_process.threading.Thread, "start", start)
    monkeypatch.setattr(worker, "_load", lambda order: ready)
    monkeypatch.setattr(worker, "_send", sent.append)
    worker.serve(None)
    (said,) = sent
    assert isinstance(said, LoadFailed)
    assert said.error.message == "2 threads of the 3 for a worker's streams could be started: can't start new thread"
    assert "streams=" in said.error.hint
