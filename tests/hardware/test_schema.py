"""A schema says in words what does not fit."""

import subprocess
import sys
from typing import Dict, List, Optional, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.hardware.schema import Schema, form_of, list_of, object_of, record, shown, whole

FORM = Schema(
    **record(
        {"name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5}, "count": whole(1, 1000)},
        {
            "items": list_of({"type": "number"}, maxItems=2),
            "files": object_of({"type": ["string", "null"]}),
            "kind": {"enum": ["a", "b"]},
        },
    )
)
GOOD = {"name": "ann", "count": 3}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"items": [1, 2.5], "files": {"x": None}, "other": [object]}, None),
        ({"name": 5}, "name is 5, and must be text"),
        ({"name": "Ann"}, "name is 'Ann', and must be of the form ^[a-z]+$"),
        ({"name": "ann\n"}, r"name is 'ann\n', and must be of the form ^[a-z]+$"),
        ({"name": "annnnn"}, "name is 'annnnn', and must be of at most 5 characters"),
        ({"count": True}, "count is True, and must be a whole number"),
        ({"count": 3.0}, "count is 3.0, and must be a whole number"),
        ({"count": 0}, "count is 0, and must be at least 1"),
        ({"count": 10**40}, "count is 100000000000000000...0000000000000000000, and must be at most 1,000"),
        ({"items": [1, "x"]}, "items[1] is 'x', and must be a number"),
        ({"items": [1, 2, 3]}, "items is [1, 2, 3], and must be of at most 2 items"),
        ({"files": {"a.b/c": 5}}, "files.a.b/c is 5, and must be text or null"),
        ({"files": {"a\x1b[2J{x}": 5}}, r"files.a\x1b[2J{x} is 5, and must be text or null"),
        ({"files": []}, "files is [], and must be an object"),
        ({"kind": "c"}, "kind is 'c', and must be 'a' or 'b'"),
    ],
)
def test_a_fault_says_where_what_and_what_it_must_be(change, fault):
    assert FORM.fault({**GOOD, **change}) == fault


def test_missing_names_are_listed():
    assert FORM.fault({"items": []}) == "it lacks name, count"


def test_what_is_no_object_is_no_document():
    assert FORM.fault([1]) == "it is [1], and must be an object"


@given(st.text() | st.lists(st.text()) | st.integers() | st.dictionaries(st.text(), st.integers()))
def test_a_value_is_shown_on_one_short_line(value):
    text = shown(value)
    assert text.isprintable() and len(text) <= 130


def test_the_library_is_imported_only_to_check_something():
    code = "import sys, neuronbert.cli.main, neuronbert.artifact.manifest; print('fastjsonschema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Inner(TypedDict):
    names: List[str]


class Outer(TypedDict):
    inner: Dict[str, Inner]
    share: Optional[float]
    flag: bool


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"inner": {"a": {"names": ["b"]}}, "share": 1, "flag": True, "more": 1}, None),
        ({"inner": {"a": {"names": [1]}}, "share": 1, "flag": True}, "inner.a.names[0] is 1, and must be text"),
        ({"inner": {"a": {}}, "share": 1, "flag": True}, "inner.a lacks names"),
        ({"inner": {}, "share": "1", "flag": True}, "share is '1', and must be a number or null"),
        ({"inner": {}, "share": None, "flag": 1}, "flag is 1, and must be true or false"),
    ],
)
def test_a_typed_dictionary_is_a_form(document, fault):
    assert Schema(**form_of(Outer)).fault(document) == fault
