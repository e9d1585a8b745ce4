"""A student is a smaller model whose outputs mean what the checkpoint's mean, of the rows that it reads."""

import json
import re
from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from tiny_checkpoints import write_checkpoint
from tiny_classifiers import write_classifier
from tiny_encoders import write_sentence_folder

from neuronbert.compiler.small_model import load_student
from neuronbert.errors import CheckpointError, UsageError
from neuronbert.tasks.checkpoints import load_checkpoint

pytest.importorskip("torch")
SMALLER = {"num_hidden_layers": 1}


def refused(student: Path, teacher: Path, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as raised:
        load_student(student, load_checkpoint(teacher))
    assert raised.value.hint and "Output(" not in raised.value.message


def test_a_smaller_one_of_the_same_or_of_another_family_is_read(tmp_path: Path) -> None:
    teacher = load_checkpoint(write_checkpoint(tmp_path / "teacher", "bert"))
    for family, changes in (("bert", SMALLER), ("distilbert", {"n_layers": 1}), ("electra", SMALLER)):
        student = load_student(write_checkpoint(tmp_path / family, family, **changes), teacher)
        assert student.model_type == family and student.encoder_parameters < teacher.encoder_parameters


def test_one_for_another_task_is_refused(tmp_path: Path) -> None:
    teacher = load_checkpoint(write_checkpoint(tmp_path / "teacher", "bert"))
    with pytest.raises(CheckpointError) as raised:
        load_student(write_classifier(tmp_path / "student"), teacher)
    assert raised.value.hint


def test_one_with_other_tokens_is_refused(tmp_path: Path) -> None:
    teacher = write_checkpoint(tmp_path / "teacher", "bert")
    refused(write_checkpoint(tmp_path / "other", "bert", more_words=["another"]), teacher, "different rows")
    left = write_checkpoint(tmp_path / "left", "bert")
    settings = left / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": "left"}))
    refused(left, teacher, "different rows")  # it was trained on rows that end with the question


def test_it_has_as_many_positions_whatever_length_its_tokenizer_names(tmp_path: Path) -> None:
    teacher = write_checkpoint(tmp_path / "teacher", "bert")
    short = write_checkpoint(tmp_path / "short", "bert", max_position_embeddings=32)
    refused(short, teacher, "has 32 positions, and")
    settings = teacher / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 32}))
    refused(short, teacher, "has 32 positions, and")  # a caller may ask for longer rows than the default
    modest = write_checkpoint(tmp_path / "modest", "bert", **SMALLER)
    named = modest / "tokenizer_config.json"
    named.write_text(json.dumps({**json.loads(named.read_text()), "model_max_length": 16}))
    assert load_student(modest, load_checkpoint(teacher)).source == str(modest)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ("good", "bad", "odd")}, "are good, bad, odd, and of"),
        ({"labels": ("bad", "good")}, "are bad, good, and of"),
        ({"problem_type": "multi_label_classification"}, "are multi_label_classification: sigmoid"),
        ({"problem_type": "single_label_classification"}, ""),
        ({}, ""),
    ],
)
def test_it_tells_the_same_labels_apart(tmp_path: Path, changes: Dict[str, Any], words: str) -> None:
    teacher = write_classifier(tmp_path / "teacher", labels=("good", "bad"))
    student = write_classifier(tmp_path / "student", **{"labels": ("good", "bad"), **SMALLER, **changes})
    if words:
        refused(student, teacher, words)
    else:
        assert load_student(student, load_checkpoint(teacher)).source == str(student)


@pytest.mark.parametrize(("own", "fits"), [(None, True), ("regression", False)])
def test_a_single_label_has_the_same_scores(tmp_path: Path, own: Optional[str], fits: bool) -> None:
    teacher = write_classifier(tmp_path / "teacher", labels=("relevant",))
    student = write_classifier(tmp_path / "student", labels=("relevant",), problem_type=own, **SMALLER)
    if fits:
        assert load_student(student, load_checkpoint(teacher)).source == str(student)
    else:
        refused(student, teacher, "are regression: none")


def test_its_embeddings_are_of_the_same_size_and_made_alike(tmp_path: Path) -> None:
    teacher = write_sentence_folder(tmp_path / "teacher")
    plain = write_checkpoint(tmp_path / "plain", "bert", head="", **SMALLER)
    refused(
        plain, teacher, "are mean, not to length 1, and of"
    )  # vectors of any length, where the teacher's have length 1
    by_first = write_sentence_folder(tmp_path / "cls", pooling={"pooling_mode_cls_token": True})
    refused(by_first, teacher, "are cls, to length 1, and of")
    wide = write_checkpoint(tmp_path / "wide", "bert", head="", hidden_size=64)
    of_plain = load_checkpoint(plain)
    with pytest.raises(UsageError, match="are sentence_embedding for each row, 64 numbers, and of .* 32 numbers"):
        load_student(wide, of_plain)
    of_cls = load_checkpoint(plain, pooling="cls")
    other = write_checkpoint(tmp_path / "other", "bert", head="", **SMALLER)
    assert load_student(other, of_cls).pooling == "cls"  # its own files have none
