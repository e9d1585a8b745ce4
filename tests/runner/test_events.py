"""Tests of the events' parts that no runner brings about at will."""

import traceback

from neuronbert.runner.events import traceback_text


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
    assert traceback_text(raised()) == f'  File "{__file__}", line 10, in raised\nZeroDivisionError: oops\n'
