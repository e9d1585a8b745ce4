"""Errors as statuses, headers and messages."""

import pickle
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert import errors
from neuronbert.server.failures import KINDS, HttpError, failure_body, failure_of, retry_headers

PLACE = "/srv/artifacts/qa"
EVERY_ERROR = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NeuronBertError)
]
OF_THE_CLIENT = (errors.InputError, errors.UsageError)
OF_THE_REQUEST = (*OF_THE_CLIENT, errors.Overloaded, errors.DeadlineExceeded, errors.PoisonRequest)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_a_kind(kind: type) -> None:
    failure = failure_of(kind(f"{PLACE} is broken", hint=f"mend {PLACE}"), "request-1")
    assert failure.status in KINDS and failure.kind in (*KINDS.values(), "poison")
    headers = dict(failure.headers)
    if issubclass(kind, OF_THE_CLIENT):
        assert 400 <= failure.status < 500
    if not issubclass(kind, OF_THE_REQUEST):  # whose messages may name what is on the server
        assert PLACE not in failure.message and "request-1" in failure.message
        assert failure.status in (500, 503)
    assert (b"retry-after" in headers) == (failure.status in (429, 503))
    assert (headers.get(b"x-should-retry") == b"false") == (failure.status == 504 or failure.kind == "poison")


@pytest.mark.parametrize("error", [ValueError(PLACE), MemoryError(), AssertionError(PLACE), OSError(2, "no", PLACE)])
def test_what_nobody_thought_of_is_500_and_tells_nothing(error: Exception) -> None:
    failure = failure_of(error, "request-1")
    assert failure.status == 500 and PLACE not in failure.message and "request-1" in failure.message


def test_the_wait_is_the_one_that_the_runner_predicts() -> None:
    failure = failure_of(errors.Overloaded("full", wait_s=7.25), "request-1")
    assert dict(failure.headers) == {b"retry-after": b"8", b"retry-after-ms": b"7250"}


@given(st.one_of(st.none(), st.floats(0, 1e9)))
def test_when_to_ask_again_is_never_too_soon(wait_s: Optional[float]) -> None:
    headers = dict(retry_headers(wait_s))
    seconds, milliseconds = int(headers[b"retry-after"]), int(headers[b"retry-after-ms"])
    assert seconds >= 1 and milliseconds >= 1
    assert milliseconds <= seconds * 1000 < milliseconds + 2000
    if wait_s is not None:
        assert wait_s <= seconds <= wait_s + 1 or seconds == 1


@pytest.mark.parametrize("kind", OF_THE_CLIENT)
def test_an_error_keeps_the_field_that_was_wrong(kind: Any) -> None:
    error = kind("empty", hint="fill it", field="question")
    for other in (error.again(), error.at("inputs[1]"), pickle.loads(pickle.dumps(error))):
        assert (type(other), other.field, other.hint) == (kind, "question", "fill it")


def test_a_place_in_the_body_is_told_apart() -> None:
    failure = failure_of(HttpError(400, "$.inputs: none", path="$.inputs"), "r")
    assert failure_body(failure) == {"error": "$.inputs: none", "error_type": "invalid_request", "path": "$.inputs"}
    assert failure_of(errors.InputError("$.inputs[3]: empty"), "r").path == "$.inputs[3]"
    assert "path" not in failure_body(failure_of(errors.InputError("empty"), "r"))
