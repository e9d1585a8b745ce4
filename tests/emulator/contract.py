"""The decorators of contract tests: what a test keeps and the defect it must notice, and what no source settles."""

import functools
import inspect

import mutations
import pytest

from neuronbert.emulator.unknowns import UNKNOWNS, default_behaviour


def contract(section, mutation):
    """Runs the test twice: as it is, where it must pass, and under ``mutation``, where it must fail."""

    def decorate(test):
        @functools.wraps(test)
        def run(*arguments, defect, **named):
            if defect is None:
                return test(*arguments, **named)
            with mutations.broken(defect):
                try:
                    test(*arguments, **named)
                except (Exception, pytest.fail.Exception):
                    return None
            pytest.fail(f"this test does not notice {defect!r}: {mutations.MUTATIONS[defect][2:]}", pytrace=False)

        signature = inspect.signature(test)
        extra = inspect.Parameter("defect", inspect.Parameter.KEYWORD_ONLY)
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])
        return pytest.mark.parametrize("defect", [None, mutation], ids=["kept", f"fails-under-{mutation}"])(run)

    return decorate


class Shown:
    """What the emulator shows of one entry of unknowns.py, in the forms it is asked for in."""

    def __init__(self, name, behaviour):
        self.setting = f"{name}={behaviour}"
        self._name, self._behaviour = name, behaviour

    def __call__(self, name):
        return self._behaviour if name == self._name else default_behaviour(name)


def unknown(name, told_by=()):
    """For what no source settles: runs the test for each behaviour in the table.

    ``expected`` is the behaviour that the test is to find, ``shown`` what the emulator shows: where they are the same
    it must pass, where they differ it must fail, so that both are allowed and told apart: by an assertion, or by an
    error of ``told_by``, which the other behaviour raises where the test expects none.
    """
    (entry,) = [entry for entry in UNKNOWNS if entry.name == name]
    behaviours = [behaviour for behaviour, _ in entry.behaviours]
    pairs = [(expected, shown) for expected in behaviours for shown in behaviours]

    def decorate(test):
        @functools.wraps(test)
        def run(*arguments, expected, shown, **named):
            if expected == shown:
                return test(*arguments, expected=expected, shown=Shown(name, shown), **named)
            try:
                test(*arguments, expected=expected, shown=Shown(name, shown), **named)
            except (AssertionError, pytest.fail.Exception, *told_by):
                return None
            pytest.fail(f"this test takes {name}={shown} for {expected}", pytrace=False)

        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            if parameter.name in ("expected", "shown")
            else parameter
            for parameter in inspect.signature(test).parameters.values()
        ]
        run.__signature__ = inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))
        ids = [f"{expected}-under-{shown}" for expected, shown in pairs]
        return pytest.mark.parametrize("expected, shown", pairs, ids=ids)(run)

    return decorate
