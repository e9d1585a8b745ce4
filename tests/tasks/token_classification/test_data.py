"""neuronbert.tasks.token_classification.data: labelled files in three forms, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from neuronbert.errors import InputError
from neuronbert.tasks.samples import calibration_path, gate_path
from neuronbert.tasks.token_classification.data import load_marked, read_texts, shipped_paragraphs, with_labels
from neuronbert.tasks.token_classification.entity_f1 import Span
from neuronbert.tasks.token_classification.windows import SplitText

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TOKENS = ["Jim", "Henson", "was", "in", "São", "Paulo"]
TAGS = ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"]
TEXT = "Jim Henson was in São Paulo"
ENTITIES = {Span("PER", 0, 10), Span("LOC", 18, 27)}


def write(folder: Path, content: Any, name: str = "data.jsonl") -> Path:
    path = folder / name
    if isinstance(content, list):
        content = "".join(json.dumps(line) + "\n" for line in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loaded(path: Path, labels=LABELS):
    return with_labels(load_marked(path), labels, path.name)


@pytest.mark.parametrize("key", ["ner_tags", "labels", "tags"])
@pytest.mark.parametrize("tags", [TAGS, [LABELS.index(tag) for tag in TAGS]], ids=["names", "numbers"])
def test_tagged_tokens(tmp_path, key, tags):
    (one,) = loaded(write(tmp_path, [{"id": "7", "tokens": TOKENS, key: tags}]))
    assert (one.text, one.tags, one.entities) == (TEXT, tuple(TAGS), ENTITIES)
    assert [TEXT[start:end] for start, end in one.words] == TOKENS
    assert one.input == SplitText(TEXT, one.words)


def test_text_with_entities(tmp_path):
    entities = [{"start": 0, "end": 10, "label": "PER"}, {"start": 18, "end": 27, "label": "B-LOC"}]
    entities.append({"start": 11, "end": 14, "label": "O"})
    (one,) = loaded(write(tmp_path, [{"text": TEXT, "entities": entities}]))
    assert (one.text, one.words, one.entities, one.input) == (TEXT, None, ENTITIES, TEXT)


@pytest.mark.parametrize("separator", [" ", "\t", " _ X\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_columns(tmp_path, separator, ending):
    lines = ["-DOCSTART- -X- O", "", *(f"{token}{separator}{tag}" for token, tag in zip(TOKENS, TAGS)), "", "", "a O"]
    for name in ("data.conll", "data.txt", "data"):
        first, second = loaded(write(tmp_path, "\ufeff" + ending.join(lines), name))
        assert (first.text, first.tags, first.entities) == (TEXT, tuple(TAGS), ENTITIES)
        assert (second.text, second.tags, second.entities) == ("a", ("O",), set())


def test_a_token_may_hold_other_white_space(tmp_path):
    (one,) = loaded(write(tmp_path, "10\u00a0000 O\nJim\tB-PER", "data.conll"))
    assert one.text == "10\u00a0000 Jim" and one.entities == {Span("PER", 7, 10)}


def test_tags_of_another_scheme_fit_by_their_types(tmp_path):
    path = write(tmp_path, [{"tokens": ["Jim", "Henson"], "tags": ["B-PER", "E-PER"]}])
    (one,) = loaded(path, ("I-PER", "O"))
    assert one.tags == ("B-PER", "E-PER") and one.entities == {Span("PER", 0, 10)}
    (one,) = loaded(write(tmp_path, [{"tokens": ["a"], "tags": [1]}]), ("DET", "NOUN"))
    assert one.entities == {Span("NOUN", 0, 1)}


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ({"tokens": ["a", "b"], "tags": ["O", "B-MISC"]}, "'B-MISC'"),
        ({"tokens": ["a"], "tags": [5]}, "5"),
        ({"tokens": ["a"], "tags": [-1]}, "-1"),
        ({"text": "ab", "entities": [{"start": 0, "end": 1, "label": "MISC"}]}, "'MISC'"),
    ],
)
def test_a_label_that_the_checkpoint_lacks_is_named_with_those_it_has(tmp_path, line, label):
    path = write(tmp_path, [{"tokens": ["a"], "tags": ["O"]}, line])
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.message == (
        f"data.jsonl, line 2: the checkpoint has no label {label}; it has O, B-PER, I-PER, B-LOC, I-LOC"
    )


def test_the_place_of_a_sentence_of_columns_is_its_lines(tmp_path):
    path = write(tmp_path, "a O\n\nb O\nc B-X\n", "data.conll")
    with pytest.raises(InputError, match="data.conll, lines 3 to 4: the checkpoint has no label 'B-X'"):
        loaded(path)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": 3}, "there is neither 'tokens' nor 'text'"),
        ({"tokens": "a b", "tags": []}, 'tokens is "a b", not a list of words'),
        ({"tokens": [], "tags": []}, r"tokens is \[\], not a list of words"),
        ({"tokens": ["a", 3], "tags": [0, 0]}, r"tokens\[1\] is 3, not a string"),
        ({"tokens": ["a", ""], "tags": [0, 0]}, r"tokens\[1\] is empty"),
        ({"tokens": ["a"]}, "there are tokens, but none of 'ner_tags', 'labels', 'tags'"),
        ({"tokens": ["a"], "ner_tags": [0, 1]}, r"ner_tags is \[0, 1\], not a list of 1 tags, one for each token"),
        ({"tokens": ["a"], "ner_tags": "O"}, 'ner_tags is "O", not a list of 1 tags'),
        ({"tokens": ["a"], "labels": [True]}, "labels holds true, neither a label nor its number"),
        ({"tokens": ["a"], "labels": [""]}, 'labels holds "", neither a label nor its number'),
        ({"text": 3, "entities": []}, "text is 3, not a string"),
        ({"text": "abc"}, "entities is null, not a list"),
        ({"text": "abc", "entities": [3]}, r"entities\[0\]: an object is expected here, not 3"),
        ({"text": "abc", "entities": [{"start": 0, "end": 1}]}, r"entities\[0\]: the key 'label' is missing"),
        ({"text": "abc", "entities": [{"start": 0, "end": 1.0, "label": "PER"}]}, "end is 1.0, not a whole number"),
        ({"text": "abc", "entities": [{"start": 1, "end": 1, "label": "PER"}]}, "characters 1 to 1 are not within"),
        ({"text": "abc", "entities": [{"start": 1, "end": 4, "label": "PER"}]}, "the text, which has 3"),
        ({"text": "abc", "entities": [{"start": 0, "end": 1, "label": ""}]}, "label is empty"),
    ],
)
def test_a_broken_record_is_named(tmp_path, record, reason):
    path = write(tmp_path, [{"tokens": ["a"], "tags": [0]}, record])
    with pytest.raises(InputError, match=f"{path}, line 2: .*{reason}"):
        load_marked(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data.conll", "a O\nalone\n", 'line 2: "alone" has no tag'),
        ("data.conll", "\n-DOCSTART- O\n\n", "holds no labelled text"),
        ("data.conll", b"a O\nb\xff O\n", r"line 2 is not UTF-8 text \(byte 0xff\)"),
        ("data.conll", b"\xef\xbb\xbfa O\nb\xff O\n", r"line 2 is not UTF-8 text \(byte 0xff\)"),
        ("data.conll", b"\x1f\x8b\x08", "is gzip-compressed"),
        ("data.conll", "a O\n\0\n", "is binary, not text"),
        ("data.json", "[]", "is a .json file, and labelled text is read from others"),
        ("data.csv", "a,O", "is a .csv file"),
        ("data.jsonl", "", "holds no record"),
        ("data.jsonl", "{", "line 1 is no JSON"),
        ("data.jsonl", b"\x1f\x8b\x08", "is gzip-compressed"),
    ],
)
def test_a_file_that_is_none_of_them(tmp_path, name, content, reason):
    path = write(tmp_path, content, name)
    with pytest.raises(InputError, match=f"{path}.*{reason}"):
        load_marked(path)


@pytest.mark.parametrize("name", ["nothing.jsonl", "nothing.conll"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(InputError, match=f"there is no file {tmp_path / name}"):
        load_marked(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is a folder, not a file"):
        load_marked(tmp_path)


def test_texts_alone(tmp_path):
    lines = [{"text": "a b"}, {"tokens": ["c", "d"], "tags": [9, 9]}, {"text": "", "id": 3}]
    assert read_texts(write(tmp_path, lines)) == ["a b", "c d", ""]
    assert read_texts(write(tmp_path, "c X\nd Y", "data.conll")) == ["c d"]
    with pytest.raises(InputError, match="line 1: the key 'text' is missing"):
        read_texts(write(tmp_path, [{"question": "?"}]))


def test_shipped_paragraphs_come_once_and_in_one_file_only():
    gate, calibration = shipped_paragraphs(gate_path()), shipped_paragraphs(calibration_path())
    assert (len(gate), len(calibration)) == (300, 200)
    assert len({*gate, *calibration}) == 500
