"""Odd values at every option of the runner: a documented error, and no place in the queue is lost by it."""

import asyncio
import inspect
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_values import ODD, odd_values
from processes import wait_until

from neuronbert import Runner
from neuronbert.engine.encoded import encoded_batch
from neuronbert.errors import ArtifactError, InputError, NeuronBertError, UsageError
from neuronbert.runner import runner as runner_module
from neuronbert.runner.inbox import Accept
from neuronbert.tasks.base import option_kinds, option_names

RUNNER_OPTIONS = sorted(set(inspect.signature(Runner).parameters) - {"artifact"})


@pytest.fixture(scope="module")
def runner(echo_artifact):
    with Runner(echo_artifact, workers=1, max_queue=8, max_windows_per_request=8) as runner:
        yield runner


class NotStarted(Exception):
    """Raised where a runner would begin to load."""


@pytest.fixture()
def no_start(monkeypatch):
    """A runner is made until all its options are checked."""

    def refuse(*_):
        raise NotStarted

    monkeypatch.setattr(runner_module, "RequestFactory", refuse)


@pytest.mark.parametrize("name", RUNNER_OPTIONS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(value=odd_values)
def test_a_runner_is_refused_by_a_documented_error(no_start, echo_artifact, name, value):
    with pytest.raises((NotStarted, UsageError, ArtifactError)):
        Runner(echo_artifact, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 2.5), ("max_wait_ms", float("nan")), ("drain_timeout_s", "a"), ("max_queue", 10.5)]
    + [("hang_timeout_s", True), ("streams", 1.5), ("publish", "no"), ("on_event", 5), ("work", 7)],
)
def test_the_message_names_the_option_and_the_value(no_start, echo_artifact, name, value):
    with pytest.raises(UsageError) as caught:
        Runner(echo_artifact, **{name: value})
    assert caught.value.message.startswith(name) and repr(value) in caught.value.message


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(["timeout_s", "breakdown", "top_k", "max_answer_len", "doc_stride", "max_seq_len", "ranking"]),
        odd_values,
        min_size=1,
        max_size=2,
    )
)
def test_no_odd_value_costs_a_place(runner, keywords):
    try:
        runner.submit("Who?", "It was me.", **keywords).exception(30)
    except NeuronBertError:
        pass
    assert runner.stats()["queue"]["rows"] == 0
    assert runner.submit("Who?", "It was me.").result(30)["answer"]


@pytest.mark.parametrize("value", ["no", np.array([1, 2]), None, 2], ids=str)
def test_a_switch_that_is_none_is_refused_before_anybody_looks_at_it(runner, value):
    """The runner's thread did, and what has no truth value ended it, for everybody."""
    with pytest.raises(UsageError, match="breakdown must be True or False"):
        runner.submit("Who?", "It was me.", breakdown=value)
    with pytest.raises(UsageError, match="breakdown must be True or False"):
        runner.submit_encoded([[101, 102]], breakdown=value)
    with pytest.raises(UsageError, match="breakdown must be True or False"):
        asyncio.run(runner.answer("Who?", "It was me.", breakdown=value))
    assert runner.submit("Who?", "It was me.", breakdown=np.bool_(True)).result(30).breakdown


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_more_odd_timeouts_than_the_queue_has_places(runner, value):
    for _ in range(2 * 8):
        try:
            runner.submit("Who?", "It was me.", timeout_s=value).exception(30)
            runner.submit_encoded([[101, 102]], timeout_s=value).exception(30)
        except NeuronBertError:
            pass
    assert runner.submit("Who?", "It was me.").result(30)


@pytest.mark.parametrize("arrived", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_comes_between_costs_no_place(runner, monkeypatch, error, arrived):
    """Whether or not the request has reached the runner's thread by then."""
    put = runner._dispatcher.inbox.put

    def fail(message):
        if arrived or not isinstance(message, Accept):
            put(message)
        if isinstance(message, Accept):
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(runner._dispatcher.inbox, "put", fail)
        for _ in range(2 * 8):
            with pytest.raises(error):
                runner.submit("Who?", "It was me.")
            wait_until(lambda: runner.stats()["queue"]["rows"] == 0)
    assert runner.submit("Who?", "It was me.").result(30)


def test_a_timeout_may_be_any_kind_of_number(runner):
    for timeout_s in (Decimal("20.5"), np.float32(20), np.int64(20), 20, float("inf")):
        assert runner.submit("Who?", "It was me.", timeout_s=timeout_s).result(30)


def test_closing_with_an_odd_timeout_closes_nothing(runner):
    with pytest.raises(UsageError, match="timeout_s must be a number of at least 0, not 'a'"):
        runner.close("a")
    assert runner.submit("Who?", "It was me.").result(30)


def test_equal_values_of_other_types_are_not_the_same_option(runner):
    for value in (7, np.int64(7)):
        assert runner.submit("Who?", "It was me.", max_answer_len=value).result(30)
    for _ in range(2):
        for value in (7.0, True, [7]):
            with pytest.raises(UsageError, match="max_answer_len parameter should be >= 1"):
                runner.submit("Who?", "It was me.", max_answer_len=value)


@settings(max_examples=100)
@given(data=st.data())
def test_options_of_the_task(runner, data):
    kinds = option_kinds(runner.task)
    name = data.draw(st.sampled_from(option_names(kinds)))
    try:
        options = runner._requests.options({name: data.draw(odd_values)})
    except UsageError:
        return
    assert all(hash(part) is not None for part in options)


@given(st.sampled_from(ODD))
def test_tokens_that_are_none(value):
    try:
        encoded_batch(value)
    except InputError as error:
        assert "input_ids" in error.message
