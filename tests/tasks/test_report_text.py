"""neuronbert.tasks.report_text: what a cell of a report shows of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.report_text import shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), (" \n", ""), (" a\tb\r\nc ", "a b c"), ("12345678", "12345678"), ("123456789", "1234567…")],
)
def test_a_text_is_shown_on_one_line(text: str, shown: str) -> None:
    assert shortened(text, 8) == shown


@given(st.text(), st.integers(1, 60))
def test_it_is_never_longer(text: str, characters: int) -> None:
    shown = shortened(text, characters)
    assert len(shown) <= characters and len(shown.splitlines()) <= 1
    assert " ".join(text.split()).startswith(shown.rstrip("…"))
