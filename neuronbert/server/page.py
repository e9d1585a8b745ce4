"""The page at ``GET /``: one HTML file that needs no network but this server."""

import functools
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


@functools.lru_cache(maxsize=None)
def page_bytes() -> bytes:
    """The file's content."""
    return PAGE.read_bytes()
