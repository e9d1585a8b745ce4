"""Asks a server elsewhere for JSON, with no library beside Python's own; ``untrusted`` reads what it says."""

import os
import ssl
import urllib.request
from http.client import HTTPException
from typing import Any, Dict, NamedTuple, Optional
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit

from neuronbert.errors import InputError, UsageError
from neuronbert.hardware.schema import Schema
from neuronbert.hardware.untrusted import Refusal, document_of

TIMEOUT_S = 5.0
MOST_BYTES = 1 << 24  # of an answer
KEY_VARIABLE = "NEURONBERT_API_KEY"
SAID_URL = "the URL that neuronbert serve said"
KEY_HINT = f"set {KEY_VARIABLE} to a key of it"
TLS_HINT = "SSL_CERT_FILE=FILE.pem with the certificate that signed the server's"


class RemoteAnswer(NamedTuple):
    """What a server said, whether or not it is pleased."""

    status: int
    reason: str
    body: bytes


class RemoteServer:
    """The server at ``url``; the first key of $NEURONBERT_API_KEY is shown to it, where there is one."""

    def __init__(self, url: str, verb: str):
        """``verb``: the command that has been given the URL, for the hint. UsageError for what is none."""
        refuse_no_url(url, verb)
        self.url = url.rstrip("/")
        self._opener = urllib.request.build_opener(_NoRedirects)

    def get(self, path: str) -> RemoteAnswer:
        """The answer to GET, of any status. InputError where the server does not answer."""
        request = urllib.request.Request(self.url + path, headers=key_header())
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return RemoteAnswer(answer.status, answer.reason, answer.read(MOST_BYTES))
        except HTTPError as error:
            with error:
                return RemoteAnswer(error.code, error.reason, error.read(MOST_BYTES))
        except (OSError, HTTPException, ValueError) as error:
            raise unanswered(self.url, error) from None

    def ask(self, path: str, form: Schema) -> Dict[str, Any]:
        """The JSON of this form at ``path``. InputError where there is none."""
        answer = self.get(path)
        if answer.status != 200:
            hint = KEY_HINT if answer.status == 401 else SAID_URL
            raise InputError(f"{self.url}{path} answers {answer.status} {answer.reason}", hint=hint)
        return document_of(answer.body, f"{self.url}{path}", form, Refusal(InputError, SAID_URL))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Shows the key to nobody else: urllib sends headers along to wherever it is told to ask instead."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        raise InputError(
            f"{req.full_url} says to ask {newurl} instead ({code}), which is not done: a key is for one server",
            hint=SAID_URL,
        )


def is_url(text: object) -> bool:
    """Whether a person who typed this means a server."""
    return isinstance(text, str) and text.lower().startswith(("http://", "https://"))


def refuse_no_url(url: str, verb: str) -> SplitResult:
    """The parts of a server's URL; UsageError for what is none, and for one with a password, which would be shown."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_one = False
    if not is_one:
        raise UsageError(f"{url} is no URL of a server", hint=f"neuronbert {verb} http://127.0.0.1:8080")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            "the URL of a server is host, port and path alone", hint=f"a key in the variable {KEY_VARIABLE}"
        )
    return parts


def unanswered(url: str, error: Exception) -> InputError:
    """What to say of a server that could not be asked."""
    reason = error.reason if isinstance(error, URLError) else error
    hint = TLS_HINT if isinstance(reason, ssl.SSLError) else SAID_URL
    return InputError(f"{url} does not answer: {error}", hint=hint)


def key_header() -> Dict[str, str]:
    """The header that shows a server the first key of $NEURONBERT_API_KEY; none where there is no key."""
    key: Optional[str] = next(iter(os.environ.get(KEY_VARIABLE, "").split()), None)
    return {} if key is None else {"Authorization": f"Bearer {key}"}
