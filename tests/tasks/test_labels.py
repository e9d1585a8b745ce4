"""neuronbert.tasks.labels: the names of id2label by number, as transformers reads them, and what a data file gives."""

from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import CheckpointError, InputError
from neuronbert.tasks.labels import label_names, label_number

NAMES = ("calm", "glad", "1", "cross")


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, ("a", "b")),
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
        ({"id2label": {1: "b", 0: "a"}}, ("a", "b")),  # of a model that is in memory
        ({"id2label": {"0": "a"}, "num_labels": 1}, ("a",)),
        ({"id2label": {"0": 0, "1": 1}}, ("0", "1")),
        ({}, ("LABEL_0", "LABEL_1")),
        ({"id2label": None, "num_labels": None}, ("LABEL_0", "LABEL_1")),
        ({"id2label": {}, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"num_labels": 1}, ("LABEL_0",)),
    ],
)
def test_names_are_in_the_order_of_their_numbers(config: Dict[str, Any], names: Any) -> None:
    assert label_names(config) == names


def test_eleven_labels_are_not_in_the_order_of_their_digits() -> None:
    assert label_names({"id2label": {str(number): f"n{number}" for number in range(11)}})[2:] == (
        *(f"n{number}" for number in range(2, 11)),
    )


@given(st.permutations(range(15)))
def test_any_order_of_the_keys_is_the_same(numbers: List[int]) -> None:
    assert label_names({"id2label": {str(n): f"name {n}" for n in numbers}}) == tuple(f"name {n}" for n in range(15))


@pytest.mark.parametrize("keys", [("1", "2"), ("0", "2"), ("0", "00"), ("0", "-1"), ("0", "one"), ("0", "²"), ("",)])
def test_numbers_with_gaps_are_refused(keys: Any) -> None:
    with pytest.raises(CheckpointError, match="the labels of id2label are numbered ") as caught:
        label_names({"id2label": dict.fromkeys(keys, "a")})
    assert caught.value.hint == "fetch config.json again from where the checkpoint came from"


def test_names_are_those_that_transformers_reads() -> None:
    pytest.importorskip("torch")
    from neuronbert.checkpoint.reference_model import transformers

    for changes in ({}, {"num_labels": 5}, {"num_labels": 1}, {"id2label": {0: "a", 1: "b", 2: "c"}}):
        config = transformers.BertConfig(**changes)
        theirs = tuple(config.id2label[number] for number in range(config.num_labels))
        assert label_names(config.to_dict()) == theirs
        assert label_names({**config.to_diff_dict(), "num_labels": config.num_labels}) == theirs


# ---- a label of a data file


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("calm", 0),
        ("cross", 3),
        ("1", 2),  # a name first of all
        ("0", 0),
        ("3", 3),
        ("003", 3),
        (0, 0),
        (1, 2),  # of JSON as of CSV
        (2, 2),
        (3, 3),
    ],
)
def test_a_label_is_given_by_name_or_number(label: Any, number: int) -> None:
    assert label_number(label, NAMES) == number


@pytest.mark.parametrize(
    "label", ["", "Calm", " calm", "4", "-1", "1.0", 4, -1, 1.0, True, False, None, [], ["calm"], {"a": 1}, "9" * 5000]
)
def test_a_label_that_the_checkpoint_lacks_is_told_with_those_that_it_has(label: Any) -> None:
    with pytest.raises(InputError, match="^the checkpoint has no label ") as caught:
        label_number(label, NAMES)
    assert caught.value.message.endswith("; it has calm, glad, 1, cross") and len(caught.value.message) < 140


def test_a_number_that_python_does_not_write_out_is_no_label() -> None:
    with pytest.raises(InputError, match="^the checkpoint has no label a int; it has calm"):
        label_number(10**5000, NAMES)


def test_of_many_labels_the_first_are_told() -> None:
    names = [f"intent {number}" for number in range(77)]
    with pytest.raises(InputError) as caught:
        label_number("intent 77", names)
    assert caught.value.message.endswith("intent 8, intent 9, ... (77 in all)")
    assert label_number("intent 76", names) == 76
