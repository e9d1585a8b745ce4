"""The values of options: each becomes a plain Python value, or a UsageError that names the option and the value."""

import math
import pickle
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import ODD_PATHS, Unspeakable, odd_values

import neuronbert
from neuronbert.artifact.manifest import load_artifact
from neuronbert.errors import (
    LARGEST_COUNT,
    NeuronBertError,
    Overloaded,
    UsageError,
    above_zero,
    as_real,
    as_whole,
    count_of,
    in_words,
    not_below_zero,
    positive,
    shown_value,
    text_or_none,
    yes_or_no,
)

CHECKS = (above_zero, count_of, not_below_zero, positive, text_or_none, yes_or_no)


@pytest.mark.parametrize("check", CHECKS)
@given(value=odd_values)
def test_a_checked_value_is_plain_or_refused_by_name(check, value):
    try:
        checked = check("the_option", value)
    except UsageError as error:
        assert error.message.startswith("the_option ")
        assert shown_value(value) in error.message
        return
    assert checked is None or type(checked) in (bool, int, float) or isinstance(checked, str)
    assert not (isinstance(checked, float) and math.isnan(checked))


@given(st.integers(1, LARGEST_COUNT))
def test_whole_numbers_pass(number):
    assert positive("n", number) == count_of("n", number) == number
    assert type(count_of("n", np.int64(number))) is int


@given(st.floats(min_value=0, exclude_min=True, allow_nan=False))
def test_numbers_pass(number):
    assert above_zero("s", number) == not_below_zero("s", number) == number
    assert type(above_zero("s", np.float64(number))) is float


def test_the_kinds_of_numbers():
    assert positive("n", None) is None
    assert as_whole(7.0) is as_whole(True) is as_whole("7") is None
    assert as_real(True) is as_real("1") is as_real(10**400) is as_real(math.nan) is None
    assert (above_zero("s", Decimal("0.5")), above_zero("s", 1)) == (0.5, 1.0)
    assert not_below_zero("s", 0) == 0.0 and above_zero("s", math.inf) == math.inf
    assert yes_or_no("b", np.bool_(False)) is False and yes_or_no("b", 1) is True
    with pytest.raises(UsageError, match=f"up to {LARGEST_COUNT}"):
        positive("n", LARGEST_COUNT + 1)
    with pytest.raises(UsageError, match=r"^s must be above 0, not a Unspeakable"):
        above_zero("s", Unspeakable())


@pytest.mark.parametrize("value", ODD_PATHS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("output", lambda path: neuronbert.compile_checkpoint("nowhere", path)),
        ("artifact", lambda path: neuronbert.evaluate_artifact(path, "data.json")),
        ("data", lambda path: neuronbert.evaluate_artifact("nowhere", path)),
        ("checkpoint", lambda path: neuronbert.plan(path, throughput=1, latency_p95_ms=100)),
        ("prices", lambda path: neuronbert.plan("nowhere", throughput=1, latency_p95_ms=100, prices=path)),
        ("measured", lambda path: neuronbert.plan("nowhere", throughput=1, latency_p95_ms=100, measured=path)),
        ("input", lambda path: neuronbert.run_job("nowhere", path, "out")),
        ("output", lambda path: neuronbert.run_job("nowhere", "in", path)),
    ],
)
def test_what_is_no_path_is_refused_by_its_name(name, call, value):
    if value is None and name in ("prices", "measured"):
        pytest.skip("it may be left out")
    with pytest.raises(UsageError, match=f"^{name} must be the path of a file, not "):
        call(value)


@pytest.mark.parametrize("name", ["x" * 300, "folder/" * 1000, "~nobody-of-this-name/x", "\ud800", "a\0b"], ids=ascii)
@pytest.mark.parametrize(
    "call",
    [
        neuronbert.load_checkpoint,
        lambda name: neuronbert.pipeline("question-answering", model=name),
        lambda name: neuronbert.plan(name, throughput=1, latency_p95_ms=100),
    ],
)
def test_a_name_that_the_system_refuses_is_no_bug(call, name):
    with pytest.raises(NeuronBertError):
        call(name)


@given(odd_values)
def test_what_is_no_path_is_no_artifact(value):
    with pytest.raises(NeuronBertError):
        load_artifact(value)


def test_a_shown_value_is_short_and_on_one_line():
    assert shown_value("a\nb") == r"'a\nb'"
    assert shown_value(np.array([[1], [2]])) == "array([[1], [2]])"
    assert len(shown_value("x" * 1000)) == 60
    assert shown_value(10**5000).startswith(("a int", "1000"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (KeyError("missing"), "KeyError: 'missing'"),
    ],
)
def test_anybodys_error_in_words(error, words):
    assert in_words(error) == words


def test_an_error_whose_message_raises_has_words_too():
    class Unprintable(Exception):
        def __str__(self):
            raise ValueError

    assert in_words(Unprintable()) == "Unprintable: (its message cannot be made: ValueError)"


def test_an_error_keeps_what_its_class_adds_wherever_it_goes():
    full = Overloaded("the queue is full", hint="ask again later", wait_s=2.5)
    for copied in (pickle.loads(pickle.dumps(full)), full.again(), full.at("inputs[7]")):
        assert type(copied) is Overloaded and copied is not full
        assert (copied.wait_s, copied.hint) == (2.5, "ask again later")
    assert str(pickle.loads(pickle.dumps(full))) == str(full.again()) == str(full)
    assert full.at("inputs[7]").args == ("inputs[7]: the queue is full",)
