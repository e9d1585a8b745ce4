"""Files and folders appear complete or not at all, nothing is left after an error, and the reason is put in words."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from neuronbert.artifact.files import new_folder, output_errors, replace_file
from neuronbert.errors import OutputError


@pytest.mark.parametrize("content", ["Zoë\n", b"\x00\xff", ""])
def test_a_file_is_replaced_as_a_whole(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("old and longer than the new one")
    (tmp_path / "file.tmp").write_text("left by a kill")
    replace_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize(("owner", "name"), [(Path, "write_bytes"), (os, "replace")])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, owner, name, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fails(*arguments):
        raise error

    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(type(error)):
        replace_file(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_replaced_is_named(tmp_path):
    path = tmp_path / ("a" * 300)
    with pytest.raises(OutputError, match="the name is too long"), output_errors(path):
        replace_file(path, "new")


def test_a_new_folder_appears_only_when_the_block_ends(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "file").read_text() == "x"
    assert os.listdir(tmp_path / "deep") == ["out"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_error(tmp_path, error):
    with pytest.raises(type(error)):
        with new_folder(tmp_path / "deep" / "deeper" / "out") as folder:
            (folder / "file").write_text("x")
            raise error
    assert os.listdir(tmp_path) == []


def test_parents_that_others_use_by_now_stay(tmp_path):
    with pytest.raises(RuntimeError):
        with new_folder(tmp_path / "deep" / "deeper" / "out"):
            (tmp_path / "deep" / "other").touch()
            raise RuntimeError
    assert os.listdir(tmp_path / "deep") == ["other"]


@pytest.mark.parametrize("below", ["file/out", "file/deep/out"])
def test_an_output_below_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a part of the path is a file"):
        with new_folder(tmp_path / below):
            pass


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_an_existing_output_is_refused(tmp_path, kind):
    target = tmp_path / "out"
    {"file": target.touch, "folder": target.mkdir, "dangling link": lambda: target.symlink_to("nowhere")}[kind]()
    with pytest.raises(OutputError, match="exists already"):
        with new_folder(target):
            pass


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")]
)
def test_what_the_file_system_says_is_put_in_words(tmp_path, code, words):
    with pytest.raises(OutputError, match=words):
        with new_folder(tmp_path / "out"):
            raise OSError(code, os.strerror(code))
    assert os.listdir(tmp_path) == []


def test_an_error_about_a_file_elsewhere_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(PermissionError):
        with new_folder(tmp_path / "a" / "out"):
            raise PermissionError(errno.EACCES, "denied", str(tmp_path / "checkpoint" / "weights"))


def test_a_second_interrupt_does_not_stop_the_cleaning_up(tmp_path, monkeypatch):
    remove, interrupts = shutil.rmtree, [KeyboardInterrupt, KeyboardInterrupt]

    def interrupted(*arguments, **options):
        if interrupts:
            raise interrupts.pop()
        remove(*arguments, **options)

    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("made")
        monkeypatch.setattr(shutil, "rmtree", interrupted)
        raise KeyboardInterrupt
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
