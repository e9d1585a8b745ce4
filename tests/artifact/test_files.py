"""Files and folders appear complete or not at all, nothing is left after an error, and the reason is put in words."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from neuronbert.artifact import files
from neuronbert.artifact.files import new_folder, output_errors, refuse_inputs, refuse_inside, replace_file
from neuronbert.errors import OutputError


@pytest.mark.parametrize("content", ["Zoë\n", b"\x00\xff", ""])
def test_a_file_is_replaced_as_a_whole(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("old and longer than the new one")
    replace_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["file"]


def test_files_and_folders_get_the_mode_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", "x")
        with new_folder(tmp_path / "folder") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # nobody else may look on, or plant anything
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("name", ["file.tmp", "file.new", ".file.tmp"])
@pytest.mark.parametrize("planted", [False, True])
def test_nothing_beside_a_replaced_file_is_touched(tmp_path, name, planted):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / name).symlink_to("precious") if planted else (tmp_path / name).write_text("precious")
    replace_file(tmp_path / "file", "new")
    assert (tmp_path / name).read_text() == "precious" == (tmp_path / "precious").read_text()


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file").symlink_to("precious")
    replace_file(tmp_path / "file", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file[1]"
    with monkeypatch.context() as patch:
        patch.setattr(files, "_discard", lambda temporary: None)
        patch.setattr(os, "replace", raise_(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            replace_file(path, "new")
    assert len(os.listdir(tmp_path)) == 1
    for other in (
        "file[1].tmp",
        ".file[1].0123abcd",
        ".file1.0123abcd.neuronbert-tmp",
        ".other.0123abcd.neuronbert-tmp",
    ):
        (tmp_path / other).touch()
    files.remove_leftovers(path)
    assert len(os.listdir(tmp_path)) == 4


def raise_(error):
    def fails(*arguments, **keywords):
        raise error

    return fails


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize(("owner", "name"), [(os, "open"), (os, "replace")])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, owner, name, error):
    path = tmp_path / "file"
    path.write_text("old")

    monkeypatch.setattr(owner, name, raise_(error))
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
    with pytest.raises(OutputError, match="exists already") as caught:
        with new_folder(target):
            pass
    assert "rm " not in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["name", "link", "hard link", "other spelling"])
def test_an_output_that_is_an_input_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    given, output = tmp_path / "in", tmp_path / "in" if kind == "name" else tmp_path / "out"
    given.write_text("precious")
    if kind == "link":
        output.symlink_to("in")
    elif kind == "hard link":
        os.link(given, output)
    elif kind == "other spelling":
        output = Path("deep/../in")
        Path("deep").mkdir()
    with pytest.raises(OutputError, match="would be written, and is the input") as caught:
        refuse_inputs([tmp_path / "other", output], [None, "elsewhere", given])
    assert "rm " not in str(caught.value.hint)


@pytest.mark.parametrize("name", ["artifact/out", "artifact/deep/out", "link/out", "artifact/../artifact/out"])
def test_an_output_inside_an_artifact_is_refused(tmp_path, name):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "link").symlink_to("artifact")
    with pytest.raises(OutputError, match="would be written into the artifact"):
        refuse_inside(tmp_path / "artifact", tmp_path / name)
    refuse_inside(tmp_path / "artifact", tmp_path / "artifact-out")
    refuse_inside(tmp_path / "artifact", tmp_path / "out")


def test_an_output_that_is_stdin_is_refused(tmp_path):
    (tmp_path / "in").write_text("precious")
    code = (
        "from pathlib import Path; from neuronbert.artifact.files import refuse_inputs\n"
        "refuse_inputs([Path('in')], ['-'])"
    )
    with open(tmp_path / "in") as stdin:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdin=stdin, capture_output=True, text=True)
    assert "in would be written, and is the input -" in done.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
@pytest.mark.parametrize("write", [lambda path: replace_file(path, "x"), lambda path: new_folder(path).__enter__()])
def test_what_is_no_disk_is_not_called_full(write):
    """No file can be made in /proc: "the disk is full" was said of it, or "a bug"."""
    path = Path("/proc/no-such-place")
    with pytest.raises(OutputError, match="cannot write /proc/no-such-place: No such file or directory"), output_errors(
        path
    ):
        write(path)


def test_an_error_of_the_system_goes_before_what_the_disk_has_free(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_is_full", lambda target: True)
    with pytest.raises(OutputError, match="permission denied"), output_errors(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "out" / "file"))
    with pytest.raises(OutputError, match="the disk is full"), output_errors(tmp_path / "out"):
        raise RuntimeError("a native writer gave up")


def test_an_error_that_names_no_file_and_may_be_of_anything_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(OSError) as caught, output_errors(tmp_path / "out"):
        raise OSError(errno.EIO, "input/output error")
    assert not isinstance(caught.value, OutputError)


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
