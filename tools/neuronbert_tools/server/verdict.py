"""What a server may say to anybody, however odd the request, for everything that attacks one."""

import re
from typing import Dict, List, Mapping, NamedTuple

from neuronbert_tools.server.client import parse_head

_ANSWER = re.compile(rb"HTTP/1\.1 \d{3} ")
_REASON = re.compile(rb'"(error|message)"')


class Said(NamedTuple):
    """One answer. Headers have small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_allowed(self) -> bool:
        """Whether it is no fault of the server's.

        Answers and refusals are none, nor is what it has a reason for at the moment (503, 504), nor a request that
        workers died of: that one is not to be asked again.
        """
        if self.status == 500:
            return self.headers.get("x-should-retry") == "false"
        if self.status in (503, 504):
            return _REASON.search(self.body) is not None
        return 200 <= self.status < 300 or 400 <= self.status < 500

    def document(self) -> Dict[str, object]:
        """As it is in a report."""
        return {"status": self.status, "body": self.body[:1000].decode("utf-8", "replace")}


def said_in(data: bytes) -> List[Said]:
    """The answers in all that came over a connection; without those that say that one may go on (100).

    Nobody knows which requests the server saw in a broken message, so lengths do not say where an answer ends.
    """
    begins = [found.start() for found in _ANSWER.finditer(data)]
    answers = []
    for begin, end in zip(begins, [*begins[1:], len(data)]):
        head, _, body = data[begin:end].partition(b"\r\n\r\n")
        status, headers = parse_head(head)
        if status >= 200:
            answers.append(Said(status, headers, body))
    return answers
