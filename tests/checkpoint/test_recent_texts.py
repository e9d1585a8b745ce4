"""What was encoded of late is kept, within its bytes, whoever asks and whatever interrupts them."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, List, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupts import MOMENTS, each_interrupt

from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.checkpoint.recent_texts import ENCODING_BYTES, MAX_BYTES, MIN_CHARACTERS, RecentTexts

TOKEN_BYTES = ENCODING_BYTES + 8
TEXTS = [chr(ord("a") + number) * MIN_CHARACTERS for number in range(8)]
ROOM = sys.getsizeof(TEXTS[0])


def encoded(tokens: int) -> Encoded:
    return Encoded(object(), np.zeros(tokens, np.int64))


def same(text: str) -> str:
    """The text as another object, as a caller's next request has it."""
    return "".join(list(text))


@given(
    st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.sampled_from(TEXTS), st.sampled_from([1, 40])), max_size=60)
)
def test_it_is_the_oldest_that_goes(places: int, steps: List[Tuple[bool, str, int]]) -> None:
    most = places * (ROOM + 20 * TOKEN_BYTES)
    recent = RecentTexts(most)
    model: List[Tuple[str, Encoded, int]] = []  # the oldest first
    for keeps, text, tokens in steps:
        known = [each for each in model if each[0] == text]
        if keeps and not known:
            made = encoded(tokens)
            size = ROOM + tokens * TOKEN_BYTES
            recent.keep({same(text): made})
            if size <= most:
                while sum(each[2] for each in model) + size > most:
                    model.pop(0)
                model.append((text, made, size))
        elif not keeps:
            found = recent.known([same(text)]).get(text)
            assert found is (known[0][1] if known else None)
            model = [each for each in model if each[0] != text] + known
        assert recent.size_bytes == sum(each[2] for each in model) <= most


def test_what_is_kept_already_stays() -> None:
    recent, first = RecentTexts(), encoded(1)
    recent.keep({TEXTS[0]: first})
    size = recent.size_bytes
    recent.keep({same(TEXTS[0]): encoded(2)})
    assert recent.known(TEXTS) == {TEXTS[0]: first} and recent.size_bytes == size


def test_resizing_drops_the_oldest() -> None:
    recent = RecentTexts()
    recent.keep({text: encoded(1) for text in TEXTS})
    recent.resize(2 * (ROOM + TOKEN_BYTES))
    assert list(recent.known(TEXTS)) == TEXTS[-2:] and recent.size_bytes == 2 * (ROOM + TOKEN_BYTES)
    recent.resize(0)
    recent.keep({TEXTS[0]: encoded(1)})
    assert not recent.known(TEXTS) and recent.size_bytes == 0


class Equal(str):
    """Equal to every text, as a class of somebody else's might be."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash(TEXTS[0])


@pytest.mark.parametrize(
    "text", ["a" * (MIN_CHARACTERS - 1), Equal(TEXTS[1]), "b" * (MAX_BYTES + 1)], ids=["short", "not a str", "too long"]
)
def test_what_is_not_worth_it_or_not_to_be_trusted_is_not_kept(text: str) -> None:
    recent = RecentTexts()
    recent.keep({TEXTS[0]: encoded(1)})
    size = recent.size_bytes
    recent.keep({text: encoded(1)})
    assert not recent.known([text]) and recent.size_bytes == size


def test_many_threads_keep_it_within_its_bytes() -> None:
    recent = RecentTexts(4 * (ROOM + 10 * TOKEN_BYTES))
    by_text = {text: encoded(number) for number, text in enumerate(TEXTS, start=1)}

    def ask(number: int) -> bool:
        for step in range(400):
            text = TEXTS[(number * 5 + step * step) % len(TEXTS)]
            found = recent.known([same(text)]).get(text)
            if found is None:
                recent.keep({same(text): by_text[text]})
            elif found is not by_text[text]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    kept = [by_text[text] for text in recent.known(TEXTS)]
    assert recent.size_bytes == sum(ROOM + len(each.ids) * TOKEN_BYTES for each in kept)
    assert 0 < recent.size_bytes <= 4 * (ROOM + 10 * TOKEN_BYTES)


def test_an_interrupt_leaves_no_lock_and_the_right_count() -> None:
    def prepare() -> Tuple[RecentTexts, Any]:
        recent = RecentTexts(2 * (ROOM + 10 * TOKEN_BYTES))
        recent.keep({text: encoded(10) for text in TEXTS[:2]})

        def ask() -> None:
            recent.known(TEXTS[:1])
            recent.keep({TEXTS[2]: encoded(20)})

        return recent, ask

    interrupts = 0
    for recent in each_interrupt(prepare):
        found: List[int] = []

        def look(recent: RecentTexts = recent, found: List[int] = found) -> None:
            kept = recent.known(TEXTS).values()
            found.append(sum(ROOM + len(each.ids) * TOKEN_BYTES for each in kept))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(30.0)
        assert found == [recent.size_bytes]
        interrupts += 1
    assert interrupts


def test_a_signals_handler_may_encode_while_its_thread_does() -> None:
    moments = 0
    for moment in range(1, 100):
        recent, seen = RecentTexts(2 * (ROOM + 10 * TOKEN_BYTES)), 0
        recent.keep({text: encoded(10) for text in TEXTS[:2]})

        def handle(frame: Any, event: str, called: Any, recent: RecentTexts = recent, moment: int = moment) -> None:
            nonlocal seen, moments
            seen += event in MOMENTS and called is not sys.setprofile
            if seen == moment:
                sys.setprofile(None)
                moments += 1
                recent.known(TEXTS)
                recent.keep({text: encoded(10) for text in TEXTS[2:5]})

        sys.setprofile(handle)
        recent.known(TEXTS[:1])
        recent.keep({TEXTS[2]: encoded(20)})
        sys.setprofile(None)
        kept = recent.known(TEXTS).values()
        assert recent.size_bytes == sum(ROOM + len(each.ids) * TOKEN_BYTES for each in kept)
        assert 0 < recent.size_bytes <= 2 * (ROOM + 10 * TOKEN_BYTES)
    assert 10 < moments < 99
