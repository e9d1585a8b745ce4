"""The decorator of contract tests: the section of the reference a test keeps, and the defect it must notice."""

import functools
import inspect

import mutations
import pytest


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
