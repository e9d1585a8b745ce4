"""Texts encoded of late, with their tokens, for ``tokenizer``: a document that is asked much is encoded once."""

import sys
import threading
from collections import OrderedDict
from typing import Dict, Iterable, List, Mapping, NamedTuple

from neuronbert.checkpoint.encoded_text import Encoded

# Some 100 documents of 20,000 characters; a process that answers takes several times as much.
MAX_BYTES = 64 << 20
# To look for a text in vain and to keep it costs a fiftieth of encoding one of this length, and more of shorter ones.
MIN_CHARACTERS = 256
# Of each token of English text, by the growth of a process that keeps Encodings: seven numbers and a string. And what
# Encoded finds out about it: four numbers of 8 bytes, and whether it is part of a word.
ENCODING_BYTES = 100 + 4 * 8 + 1


class _Kept(NamedTuple):
    encoded: Encoded
    size_bytes: int


class RecentTexts:
    """What was encoded last, of ``max_bytes`` at most, texts included; the least recently used goes first.

    From any thread. Texts are compared as they are: no two are taken for one another.

    Python looks for signals at calls and at jumps backwards (since 3.10). There, what is kept and its count agree: for
    Ctrl-C, and for a signal's handler that encodes while its thread is in here.
    """

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # of a dict the first is slow to find once many have gone
        self._lock = threading.RLock()

    def known(self, texts: Iterable[str]) -> Dict[str, Encoded]:
        """Those of ``texts`` that are kept, which are the newest from now on."""
        known = {}
        for text in _worth_keeping(texts):
            with self._lock:
                if text in self._kept:
                    kept = self._kept[text]
                    del self._kept[text]
                    self._kept[text] = kept
                    known[text] = kept.encoded
        return known

    def keep(self, encoded: Mapping[str, Encoded]) -> None:
        """Keep texts as the newest, in place of others as far as they are in their way.

        From then on nobody can write to their ids, which others read too.
        """
        for text in _worth_keeping(encoded):
            self._keep(text, encoded[text])

    def _keep(self, text: str, encoded: Encoded) -> None:
        kept = _Kept(encoded, _size_bytes(text, encoded))
        if kept.size_bytes > self._max_bytes:
            return
        encoded.ids.flags.writeable = False
        with self._lock:
            while text not in self._kept and self.size_bytes + kept.size_bytes > self._max_bytes:
                self._drop_oldest()
            if text not in self._kept:  # nobody else was faster
                self.size_bytes += kept.size_bytes
                self._kept[text] = kept

    def resize(self, max_bytes: int) -> None:
        """Keep ``max_bytes`` at most from now on: 0 where the same texts come again only to be measured."""
        with self._lock:
            self._max_bytes = max_bytes
            while self.size_bytes > self._max_bytes:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        for oldest in self._kept:
            self.size_bytes -= self._kept[oldest].size_bytes
            del self._kept[oldest]
            return


def _worth_keeping(texts: Iterable[str]) -> List[str]:
    # A class of somebody else's may take two texts for equal that differ.
    return [text for text in texts if len(text) >= MIN_CHARACTERS and type(text) is str]


def _size_bytes(text: str, encoded: Encoded) -> int:
    return sys.getsizeof(text) + encoded.ids.nbytes + ENCODING_BYTES * len(encoded.ids)
