"""Ctrl-C at each moment at which it may come, one after the other."""

import gc
import itertools
import sys

# When Python (since 3.10) looks whether there was a signal, beside each turn of a loop.
MOMENTS = ("call", "return", "c_return")


def interrupted(do, number):
    """Call ``do``, with KeyboardInterrupt at its moment of this number; whether there were so many.

    It may come as a RuntimeError: threading.Condition.wait, interrupted just after it released the lock, does that.
    """
    seen = 0

    def look(frame, event, called):
        nonlocal seen
        seen += event in MOMENTS and called is not sys.setprofile
        if seen == number:
            sys.setprofile(None)
            raise KeyboardInterrupt

    gc.disable()  # an interrupt in a __del__ is lost, and pytest's warning
    sys.setprofile(look)
    try:
        do()
    except (KeyboardInterrupt, RuntimeError):
        pass
    finally:
        sys.setprofile(None)
        gc.enable()
    return seen >= number


def each_interrupt(prepare):
    """What ``prepare`` gives, again and again: each with its second part, a function, interrupted a moment later."""
    for number in itertools.count(1):
        thing, do = prepare()
        if not interrupted(do, number):
            return
        yield thing
