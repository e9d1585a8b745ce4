"""What a server may be told, and what its models may be called."""

import math
import os
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import NeuronBertError, UsageError
from neuronbert.server.settings import Placed, ServerSettings, places_of

NUMBERS = (
    "max_body_bytes max_head_bytes max_rows_per_request max_rows_per_client request_timeout_s head_timeout_s "
    "body_timeout_s keep_alive_s grace_s drain_timeout_s port"
).split()
WORDS = st.text("abcXYZ019._-", min_size=1, max_size=20).filter(lambda word: word[0] not in ".-")
ANYTHING = st.one_of(st.none(), st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.lists(st.none()))


@given(st.sampled_from(NUMBERS), ANYTHING)
def test_a_number_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    try:
        settings = ServerSettings(**{name: value})
    except UsageError as error:
        assert name in error.message and error.hint or "up to" in error.message
        return
    taken = getattr(settings, name)
    assert taken is None or (taken >= 0 and not math.isnan(taken) and not isinstance(taken, bool))


@given(st.lists(st.text(max_size=8), max_size=4))
def test_a_key_is_what_a_header_can_hold(keys: List[str]) -> None:
    are_good = all(key and all("!" <= character <= "~" for character in key) for key in keys)
    try:
        assert ServerSettings(api_key=tuple(keys)).api_key == tuple(keys) and are_good
    except UsageError as error:
        assert not are_good
        assert not any(key in error.message for key in keys if len(key) > 3)  # a key is no part of a message


@pytest.mark.parametrize(
    "files", [{"ssl_keyfile": "k"}, {"ssl_certfile": "c"}, {"ssl_keyfile": "k", "ssl_certfile": "c"}]
)
def test_tls_needs_both_files(files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        ServerSettings(**files)


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="log_format"):
        ServerSettings(log_format="xml")


@given(st.lists(WORDS, min_size=1, max_size=5, unique=True))
def test_models_are_called_what_they_are_given(names: List[str]) -> None:
    assert places_of([f"{name}=some/folder" for name in names]) == tuple(Placed(name, "some/folder") for name in names)


@given(st.lists(st.text(max_size=12), max_size=3))
def test_every_name_can_be_in_a_url(given: List[str]) -> None:
    try:
        places = places_of(given)
    except NeuronBertError as error:
        assert error.hint
        return
    assert len({place.name for place in places}) == len(places) == len(given)
    assert all(place.name.isascii() and "/" not in place.name and place.name.strip(".") for place in places)


def test_a_folder_without_a_name_is_called_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    with pytest.raises(UsageError):  # it is there, and its name cannot be in a URL
        places_of(["a=b"])
    assert places_of(["x/y/qa-artifact/", "n=a=b"]) == (Placed("qa-artifact", "x/y/qa-artifact/"), Placed("n", "a=b"))
    assert places_of(["./deep=er/qa"]) == (Placed("qa", "./deep=er/qa"),)
    assert places_of(["."]) == (Placed(os.path.basename(os.getcwd()), "."),)
    with pytest.raises(UsageError, match="nothing to serve"):
        places_of([])
