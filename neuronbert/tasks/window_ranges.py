"""Where texts that are too long for a row are cut into overlapping windows, for the windows modules of tasks. Pure."""

from typing import List, Tuple


def window_ranges(tokens: int, room: int, overlap: int) -> List[Tuple[int, int]]:
    """The range (first, stop) of a text's ``tokens`` in each window, with room for ``room`` of them in a window.

    Windows start every ``room - overlap`` tokens (at least one) and the last one ends with the text.
    """
    step, count = _step(room, overlap), window_count(tokens, room, overlap)
    return [(index * step, min(index * step + room, tokens)) for index in range(count)]


def window_count(tokens: int, room: int, overlap: int) -> int:
    """How many ``window_ranges`` there are."""
    return 1 if tokens <= room else -(-(tokens - room) // _step(room, overlap)) + 1


def _step(room: int, overlap: int) -> int:
    return max(room - overlap, 1)
