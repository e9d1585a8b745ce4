"""The page at ``GET /``: one HTML file that needs no network but this server, and what browsers may let it do."""

import base64
import functools
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


@functools.lru_cache(maxsize=None)
def page_bytes() -> bytes:
    """The file's content."""
    return PAGE.read_bytes()


@functools.lru_cache(maxsize=None)
def page_policy() -> bytes:
    """Its Content-Security-Policy: its own style and script, by their digests, and requests to this server; no more."""
    return (
        f"default-src 'none'; style-src {_digest('style')}; script-src {_digest('script')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).encode()


def _digest(tag: str) -> str:
    """Of what stands in the page's one element of this name."""
    (content,) = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), page_bytes(), flags=re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
