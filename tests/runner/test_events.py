"""Tests of the events' parts that no runner brings about at will."""

import logging
import traceback

import pytest

from neuronbert.runner.events import Events, log, traceback_text


def raised():
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError as error:
        return error


def test_a_traceback_that_python_cannot_print_still_says_where(monkeypatch):
    assert "ZeroDivisionError: oops" in traceback_text(raised())

    def fail(*_):
        raise SystemError("AST constructor recursion depth mismatch (before=147, after=25)")

    monkeypatch.setattr(traceback, "format_exception", fail)
    assert (
        traceback_text(raised())
        == f'  File "{__file__}", line {raised.__code__.co_firstlineno + 2}, in raised\nZeroDivisionError: oops\n'
    )


class OddHandler(logging.Handler):
    """Raises, as one of a log server that is down, without asking ``handleError``."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def emit(self, record):
        raise self.error


@pytest.mark.parametrize("error", [ConnectionError("log server is down"), SystemExit(1)])
def test_what_a_handler_of_the_log_raises_goes_no_further(error, capsys):
    """It is called in the runner's thread, which would end with it."""
    heard = []
    events = Events(heard.append)
    log.addHandler(handler := OddHandler(error))
    try:
        events.happened("died", worker=0)
    finally:
        log.removeHandler(handler)
    assert [event["event"] for event in events] == [event["event"] for event in heard] == ["died"]
    assert "a handler of the log neuronbert.runner raised:\nTraceback" in capsys.readouterr().err


def test_nor_does_it_where_the_log_is_told_what_a_listener_raised(capsys):
    events = Events(lambda event: 1 / 0)
    log.addHandler(handler := OddHandler(OSError("log server is down")))
    try:
        events.happened("died", worker=0)
    finally:
        log.removeHandler(handler)
    assert capsys.readouterr().err.count("OSError: log server is down") == 2


def test_what_logging_is_told_to_keep_to_itself_is_not_printed(capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.addHandler(handler := OddHandler(OSError("log server is down")))
    try:
        Events().happened("died", worker=0)
    finally:
        log.removeHandler(handler)
    assert capsys.readouterr().err == ""
