"""neuronbert.tasks.window_ranges: every token is in a window, and neighbours share as many as they should."""

from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.window_ranges import window_count, window_ranges


@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 200))
def test_ranges_cover_the_text_in_order(tokens: int, room: int, overlap: int) -> None:
    ranges = window_ranges(tokens, room, overlap)
    assert ranges[0][0] == 0 and ranges[-1][1] == tokens
    assert len(ranges) == window_count(tokens, room, overlap)
    assert all(stop - first <= room for first, stop in ranges)
    for (first, stop), (next_first, next_stop) in zip(ranges, ranges[1:]):
        assert first < next_first <= stop < next_stop
        assert stop - next_first == min(overlap, room - 1)
