"""Values that no option was meant for, and that a caller passes one day."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st


class Unspeakable:
    """Its repr raises, as that of an int of more than 4,300 digits does."""

    def __repr__(self):
        raise ValueError("no words")


ODD = [
    True, False, 0, -1, 7.0, 2.5, 1e300, 10**400, 10**5000, -(10**400), math.nan, math.inf, -math.inf, 1j,
    "a", "5", "", b"5", [1], (1,), {}, {"a": 1}, set(), object(), Unspeakable(), print, int, ...,
    Decimal("0.5"), Decimal("NaN"), Decimal("sNaN"), Decimal("1e400"), Fraction(1, 2),
    np.int64(3), np.float32(0.5), np.float64("nan"), np.bool_(True), np.array(3), np.array([1, 2]), np.str_("a"),
]  # fmt: skip

# What is no path of a file, or none that the system takes.
ODD_PATHS = ["a\0b", "\ud800", 5, 1.5, True, None, b"x", ["x"], object(), Unspeakable()]

odd_values = st.one_of(
    st.sampled_from(ODD), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)
