"""Whatever lies at a path, reading it gives bytes or one kind of error, and never waits."""

import ast
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuronbert
from neuronbert.errors import CheckpointError
from neuronbert.hardware import untrusted
from neuronbert.hardware.schema import Schema
from neuronbert.hardware.untrusted import Refusal, json_object, read_document, read_file, read_optional

REFUSAL = Refusal(CheckpointError, "fetch it again")


def test_a_regular_file_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert read_file(path, REFUSAL) == read_optional(path, REFUSAL) == b"content"


def test_a_symbolic_link_is_followed_only_where_links_are_allowed(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", REFUSAL) == b"content"
    with pytest.raises(CheckpointError, match="link is a symbolic link, not a file"):
        read_file(tmp_path / "link", REFUSAL, links=False)


def test_what_is_missing_is_missing(tmp_path):
    assert read_optional(tmp_path / "nothing", REFUSAL) is None
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", REFUSAL)


def test_a_link_to_nothing_and_one_to_itself_are_not_missing(tmp_path):
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="broken is a symbolic link to 'nowhere', which is not there"):
        read_optional(tmp_path / "broken", REFUSAL)
    with pytest.raises(CheckpointError, match="loop is a symbolic link"):
        read_optional(tmp_path / "loop", REFUSAL)


def test_a_named_pipe_is_refused_at_once_and_through_a_link_too(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(CheckpointError, match=f"{name} is a named pipe, not a file"):
            read_file(tmp_path / name, REFUSAL)


def test_a_pipe_that_takes_a_file_s_place_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    opened = os.open

    def late(*arguments):
        path.unlink()
        os.mkfifo(path)
        return opened(*arguments)

    monkeypatch.setattr(untrusted.os, "open", late)
    with pytest.raises(CheckpointError, match="file is a named pipe, not a file"):
        read_file(path, REFUSAL)


@pytest.mark.parametrize("links", [True, False])
def test_devices_sockets_and_folders_are_refused(tmp_path, monkeypatch, links):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for path, kind in (("/dev/zero", "a device"), ("socket", "a socket"), (".", "a folder")):
            with pytest.raises(CheckpointError, match=f"is {kind}, not a file"):
                read_file(untrusted.Path(path), REFUSAL, links=links)


def test_a_file_that_is_too_large_is_refused_without_being_read(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(CheckpointError, match="has 8,589,934,592 bytes, and more than 1,000 make no sense"):
        read_file(path, REFUSAL, 1000)


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "it's").write_bytes(b"")
    monkeypatch.setattr(untrusted.os, "open", refuse)
    with pytest.raises(CheckpointError, match="it's cannot be read: Permission denied") as caught:
        read_file(tmp_path / "it's", REFUSAL)
    assert caught.value.hint == f"ls -ld '{tmp_path}/it'\"'\"'s', then chmod"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "truncated or damaged"),
        (b"[1]", r"holds \[1\], not a JSON object"),
        (b"null", "holds None, not a JSON object"),
        (b'{"a": NaN}', "NaN, which is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity, which is no number"),
        (b'{"a": 1e400}', "a number too large, 1e400"),
        (b'{"a": ' + b"1" * 401 + b"}", "a number of 401 digits"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "it has 'b' twice"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (rb'{"a": "\ud800"}', "half a character"),
        (rb'{"a": {"\udc00 \ud800": 1}}', "half a character"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested too deeply"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "nested too deeply"),
        (b'{"a":' * 1_000_000, "nested too deeply"),
    ],
)
def test_json_that_one_reader_takes_and_another_does_not_is_refused(raw, message):
    with pytest.raises(CheckpointError, match=f"file.json.*{message}"):
        json_object(raw, "file.json", REFUSAL)


class CountedName(str):
    """A name that counts how often any is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedName.compared += 1
        return str.__eq__(self, other)


def test_a_name_that_is_there_twice_is_found_in_one_pass():
    names = [CountedName(number) for number in (*range(1000), 999)]
    with pytest.raises(ValueError, match="'999' twice"):
        untrusted._object([(name, None) for name in names])
    assert CountedName.compared <= len(names)


@pytest.mark.parametrize(
    "value", [{"a": "\U0001f600 \\ud800"}, {"a": 10**309}, {"a": -1e308, "b": [[[]]] * 100}, {}, {"": {"": ""}}]
)
def test_odd_json_that_is_sound_is_taken(value):
    assert json_object(json.dumps(value).encode(), "file.json", REFUSAL) == value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(), items, max_size=3),
)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.booleans())
def test_what_json_writes_is_read_back(document, escape):
    text = json.dumps(document, ensure_ascii=escape)
    assert json_object(text.encode(), "file.json", REFUSAL) == document


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0123456789eE.-\\u dnulltrueNaI', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_one_kind_of_error(raw):
    try:
        assert isinstance(json_object(raw, "file.json", REFUSAL), dict)
    except CheckpointError as error:
        assert error.message.startswith("file.json") and error.hint == "fetch it again"


def test_a_document_that_does_not_fit_names_file_place_value_and_hint(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"sizes": {"width": "ten"}}')
    schema = Schema(properties={"sizes": {"properties": {"width": {"type": "integer"}}}})
    with pytest.raises(CheckpointError) as caught:
        read_document(path, schema, REFUSAL)
    assert str(caught.value) == (f"{path}: sizes.width is 'ten', and must be a whole number\n  try: fetch it again")


def test_recursion_is_bounded_whatever_the_interpreter_allows():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        with pytest.raises(CheckpointError, match="nested too deeply"):
            json_object(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "file.json", REFUSAL)
    finally:
        sys.setrecursionlimit(limit)


# ---------------------------------------------------------------------- nobody goes around it

# Where JSON is parsed otherwise: what did not come out of a file of somebody else.
PARSED_ELSEWHERE = {
    "artifact/resumable.py": "what it has just made itself",
    "backends/child_main.py": "the command line that start_child wrote",
    "backends/isolated.py": "the pipe to a process of ours",
    "backends/neuron/compile_job.py": "our own cache (hardware/own_places.py), and the folder of a job of ours",
    "backends/tvm/compile_job.py": "the folder of a job of ours",
    "benchmark/loadgen.py": "the log that LoadGen has just written for us",
    "checkpoint/loading.py": "what transformers made of a config that has passed",
    "checkpoint/tokenizer_files.py": "bytes that it has just written itself",
    "emulator/neff.py": "a program, which may do anything anyway",
    "emulator/reservation.py": "our own folder (hardware/own_places.py)",
    "hardware/device_model.py": "a file of the package",
    "hardware/gpu_model.py": "a file of the package",
    "hardware/neuron.py": "what neuron-ls printed",
    "tasks/lines.py": "a line of a stream, refused by its number",
}
PACKAGE = Path(neuronbert.__file__).parent


def parses_json(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and getattr(node.value, "id", "") == "json"
        or isinstance(node, ast.ImportFrom) and node.module == "json"
        for node in ast.walk(ast.parse(path.read_bytes()))
    )  # fmt: skip


def test_no_other_module_parses_a_file():
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if parses_json(path)}
    assert found - {"hardware/untrusted.py"} == set(PARSED_ELSEWHERE)
