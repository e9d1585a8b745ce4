"""A growing output that is killed before or after any of its system calls, and what it refuses to go on with."""

import json
import os
import shlex
from pathlib import Path

import pytest

from neuronbert.artifact import files, resumable
from neuronbert.artifact.resumable import as_job, partial_path, read_record, record_path, resumable_output
from neuronbert.errors import OutputError

JOB = as_job(artifact="a", top_k=1, lengths=(1, 2))
STEPS = [b"one\n", b"", b"two\nthree\n", b"four\n"]
COMPLETE = b"".join(STEPS)


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """No test pulls the plug, and a busy disk takes its time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Killed(BaseException):
    """Nothing after it happens, as nothing happens after SIGKILL."""


def reverse(parts, whole) -> None:
    """Makes an output of its parts that begins with the last of them, as a file with its length in front does."""
    whole.write(b"".join(reversed(parts.read().splitlines(keepends=True))))


# How the output is made of its parts, and what it then is.
WAYS = [(None, COMPLETE), (reverse, b"four\nthree\ntwo\none\n")]


def perform(output: Path, job=JOB, resumable=True, until=4, make_whole=None) -> int:
    """Do the steps that are left, one line of input each; how many had been done before."""
    with resumable_output(output) as growing:
        record = growing.begin(job, resumable)
        done = record.input_lines
        for step in STEPS[done:until]:
            record = growing.append(step, record._replace(input_lines=record.input_lines + 1))
        if until < len(STEPS):
            raise Killed
        growing.finish(make_whole)
    return done


def test_the_step_at_the_end_of_the_input_is_done_again(tmp_path):
    with pytest.raises(Killed), resumable_output(tmp_path / "output") as growing:
        record = growing.append(b"one\n", growing.begin(JOB, True)._replace(input_lines=1))
        record = growing.append(b"two, cut sh", record._replace(input_lines=2), is_end=True)
        assert (record.input_lines, record.output_bytes) == (2, 15)
        raise Killed
    assert partial_path(tmp_path / "output").read_bytes() == b"one\ntwo, cut sh"
    with resumable_output(tmp_path / "output") as growing:
        record = growing.begin(JOB, True)
        assert (record.input_lines, record.output_bytes) == (1, 4)
        growing.append(b"two\n", record._replace(input_lines=2), is_end=True)
        growing.finish()
    assert (tmp_path / "output").read_bytes() == b"one\ntwo\n"
    assert os.listdir(tmp_path) == ["output"]


class Countdown:
    """Raises Killed at the n-th of the calls that it wraps: before it is made, or after."""

    def __init__(self, monkeypatch, remaining: int, after: bool, kill: bool = True):
        self.remaining, self.after = remaining, after
        for owner, name in ((os, "replace"), (os, "rename"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))
        monkeypatch.setattr(os, "fsync", self.wrapped(lambda descriptor: None))
        monkeypatch.setattr(resumable.ResumableOutput, "_cut", self.wrapped(resumable.ResumableOutput._cut))
        if kill:  # an interrupt lets the process tidy
            monkeypatch.setattr(resumable.ResumableOutput, "tidy", lambda self: None)
            monkeypatch.setattr(files, "_discard", lambda temporary: None)

    def wrapped(self, function):
        def call(*arguments, **keywords):
            self.remaining -= 1
            if self.remaining == 0 and not self.after:
                raise Killed
            result = function(*arguments, **keywords)
            if self.remaining == 0:
                raise Killed
            return result

        return call


@pytest.mark.parametrize(("make_whole", "complete"), WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_call_changes_nothing(tmp_path, monkeypatch, after, make_whole, complete):
    for number in range(1, 100):
        output = tmp_path / f"{number}" / "output"
        output.parent.mkdir()
        with monkeypatch.context() as patch:
            killed = False
            try:
                Countdown(patch, number, after)
                perform(output, make_whole=make_whole)
            except Killed:
                killed = True
        if output.exists():  # killed when all was done but the tidying
            with pytest.raises(OutputError, match="exists already"):
                perform(output, make_whole=make_whole)
        else:
            perform(output, make_whole=make_whole)
        assert output.read_bytes() == complete
        assert os.listdir(output.parent) == ["output"]
        if not killed:
            assert number > 3 * len(STEPS)
            return
    pytest.fail("it never came to its end")


def interrupted(patch, output: Path, number: int, after: bool, make_whole):
    """Interrupt a job at that call: whether it was not yet done, and the input lines of the last record on the disk."""
    recorded, replace = [0], os.replace

    def seen(old, new):
        replace(old, new)
        recorded.append(read_record(output).input_lines)

    patch.setattr(os, "replace", seen)
    try:
        Countdown(patch, number, after, kill=False)
        perform(output, make_whole=make_whole)
    except Killed:
        return True, recorded[-1]
    return False, recorded[-1]


@pytest.mark.parametrize(("make_whole", "complete"), WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_at_any_call_keeps_what_was_recorded(tmp_path, monkeypatch, after, make_whole, complete):
    for number in range(1, 100):
        output = tmp_path / f"{number}" / "output"
        output.parent.mkdir()
        with monkeypatch.context() as patch:
            killed, recorded = interrupted(patch, output, number, after, make_whole)
        if not killed:
            assert number > 3 * len(STEPS)
            return
        if output.exists():
            assert (recorded, output.read_bytes()) == (len(STEPS), complete)
        else:
            assert perform(output, make_whole=make_whole) == recorded
            assert output.read_bytes() == complete
    pytest.fail("it never came to its end")


def killed_while_made(output: Path, monkeypatch) -> None:
    """Killed when the record knows the file that was made, which has not its name yet."""
    with monkeypatch.context() as patch:
        patch.setattr(resumable.ResumableOutput, "tidy", lambda self: None)
        patch.setattr(files, "_discard", lambda temporary: None)
        patch.setattr(os, "replace", killing(os.replace, output))
        with pytest.raises(Killed):
            perform(output, make_whole=reverse)


def killing(replace, output: Path):
    def call(old, new):
        if new == output:
            raise Killed
        replace(old, new)

    return call


def test_a_file_in_the_place_of_one_that_was_being_made_is_not_taken_for_it(tmp_path, monkeypatch):
    output = tmp_path / "output"
    killed_while_made(output, monkeypatch)
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        perform(output, make_whole=reverse)
    assert output.read_bytes() == b"precious" and partial_path(output).read_bytes() == COMPLETE
    output.unlink()
    assert perform(output, make_whole=reverse) == len(STEPS)
    assert output.read_bytes() == WAYS[1][1] and os.listdir(tmp_path) == ["output"]


def test_the_space_of_a_first_attempt_is_free_before_the_second(tmp_path, monkeypatch):
    output, seen = tmp_path / "output", []
    killed_while_made(output, monkeypatch)
    left = [path for path in tmp_path.iterdir() if path.name.endswith(files.LEFTOVER_SUFFIX)]
    perform(output, make_whole=lambda parts, whole: seen.append([path.exists() for path in left]))
    assert seen == [[False]]


def test_a_file_that_came_while_the_output_was_made_is_not_overwritten(tmp_path):
    output = tmp_path / "output"
    with pytest.raises(OutputError, match="exists already"):
        perform(output, make_whole=lambda parts, whole: output.write_bytes(b"precious"))
    assert output.read_bytes() == b"precious" and partial_path(output).read_bytes() == COMPLETE
    assert sorted(os.listdir(tmp_path)) == ["output", "output.partial", "output.partial.json"]


def test_what_was_written_but_not_recorded_is_cut_off(tmp_path):
    output = unfinished(tmp_path / "output")
    with open(partial_path(output), "ab") as file:
        file.write(b"half a li")
    assert perform(output) == 3
    assert output.read_bytes() == COMPLETE


def unfinished(output: Path) -> Path:
    """The output of a job that was killed when three of its steps were done: eighteen bytes."""
    with pytest.raises(Killed):
        perform(output, until=3)
    return output


def test_a_partial_file_that_was_changed_is_refused(tmp_path):
    """A byte anywhere, or an end that is missing; what it was before is gone on with."""
    output = unfinished(tmp_path / "output")
    partial = partial_path(output)
    good = partial.read_bytes()
    for at in range(len(good)):
        for changed in (good[:at], good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]):
            partial.write_bytes(changed)
            with pytest.raises(OutputError, match=f"was changed since .* its first {len(good)} bytes"):
                perform(output)
            assert partial.read_bytes() == changed  # nothing is lost that might be mended
    partial.write_bytes(good)
    assert perform(output) == 3
    assert output.read_bytes() == COMPLETE


def test_a_record_of_which_any_byte_was_changed_is_refused(tmp_path):
    output = unfinished(tmp_path / "output")
    good = record_path(output).read_bytes()
    for at in range(len(good)):
        record_path(output).write_bytes(good[:at] + bytes([good[at] ^ (1, 4, 128)[at % 3]]) + good[at + 1 :])
        with pytest.raises(OutputError, match="its own digest|no JSON|must be|lacks"):
            perform(output)
    record_path(output).write_bytes(good)
    assert perform(output) == 3


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("output_bytes", [0, 5, 17, 19, -1, 1 << 80, 1.5, "5", None, True])
def test_another_length_is_refused(tmp_path, output_bytes, signed):
    """Even by somebody who makes the digest good: the bytes have their own."""
    output = unfinished(tmp_path / "output")
    record = read_record(output)
    assert record is not None
    forged = record._replace(output_bytes=output_bytes)
    digest = (forged if signed else record).digest()
    record_path(output).write_text(json.dumps({**forged._asdict(), "digest": digest}))
    with pytest.raises(OutputError, match="was changed|its own digest|must be"):
        perform(output)
    assert partial_path(output).read_bytes() == COMPLETE[: record.output_bytes]


def test_the_record_is_plain(tmp_path):
    output = tmp_path / "output"
    with pytest.raises(Killed):
        perform(output, until=1)
    assert json.loads(record_path(output).read_text())["output_bytes"] == 4
    record = read_record(output)
    assert record is not None and (record.job, record.input_lines) == (JOB, 1)


def test_another_job_is_refused_by_what_differs(tmp_path):
    output = tmp_path / "output"
    with pytest.raises(Killed):
        perform(output, until=2)
    with pytest.raises(OutputError, match="its top_k was 1, and is now 2") as caught:
        perform(output, {**JOB, "top_k": 2})
    assert f"rm {partial_path(output)}" in str(caught.value.hint)
    assert perform(output) == 2


def test_input_that_cannot_be_read_again_begins_anew(tmp_path, monkeypatch):
    output = tmp_path / "output"
    with monkeypatch.context() as patch:
        patch.setattr(resumable.ResumableOutput, "tidy", lambda self: None)
        with pytest.raises(Killed):
            perform(output, resumable=False, until=2)
    assert partial_path(output).stat().st_size
    assert perform(output, resumable=False) == 0
    assert output.read_bytes() == COMPLETE


@pytest.mark.parametrize("until", [0, 2])
def test_an_error_leaves_nothing_that_is_of_no_use(tmp_path, until):
    with pytest.raises(Killed):
        perform(tmp_path / "new" / "output", resumable=until == 0, until=until)
    assert os.listdir(tmp_path) == []


def test_a_file_of_nobody_is_not_overwritten(tmp_path):
    partial_path(tmp_path / "output").write_bytes(b"precious")
    with pytest.raises(OutputError, match="no record beside it says what it holds"):
        perform(tmp_path / "output")
    assert partial_path(tmp_path / "output").read_bytes() == b"precious"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"job": {}, "resumable": true, "more": 1}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    partial_path(tmp_path / "output").write_bytes(b"one\n")
    record_path(tmp_path / "output").write_text(text)
    with pytest.raises(OutputError, match="partial.json( is no JSON| holds|: it lacks)"):
        perform(tmp_path / "output")


def test_two_cannot_write_at_once(tmp_path):
    with resumable_output(tmp_path / "output") as growing:
        growing.begin(JOB, True)
        with pytest.raises(OutputError, match="another process is writing"):
            perform(tmp_path / "output")
        growing.finish()
    assert os.listdir(tmp_path) == ["output"]


def test_what_came_meanwhile_is_not_overwritten(tmp_path):
    output = tmp_path / "output"
    with pytest.raises(OutputError, match="exists already"), resumable_output(output) as growing:
        growing.begin(JOB, True)
        output.write_bytes(b"precious")
        growing.finish()
    assert output.read_bytes() == b"precious"


PRECIOUS = '{"of": "the user"}'


@pytest.mark.parametrize("name", ["output", "output.partial", "output.partial.json", "output.partial.json.new"])
@pytest.mark.parametrize("text", [PRECIOUS, "", '{"line": 1}\n'])
def test_an_input_beside_the_output_is_never_destroyed(tmp_path, monkeypatch, name, text):
    """0.1 wrote its record over an input called OUT.partial.json.new, and removed one called OUT.partial.json."""
    given = tmp_path / name
    given.write_text(text)
    try:
        with resumable_output(tmp_path / "output", given) as growing:
            record = growing.begin(JOB, True)
            growing.append(b"one\n", record._replace(input_lines=1, output_bytes=4))
            growing.finish()
    except OutputError as error:
        assert f"would be written, and is the input {given}" in str(error) and "rm " not in str(error)
        assert name != "output.partial.json.new"
    assert given.read_text() == text


@pytest.mark.parametrize("name", ["output.partial", "output.partial.json"])
@pytest.mark.parametrize("text", [PRECIOUS, "[]", '{"job": 5}'])
def test_a_file_that_no_job_made_stays_and_no_hint_removes_it(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(OutputError) as caught:
        perform(tmp_path / "output")
    assert (tmp_path / name).read_text() == text
    assert "rm " not in str(caught.value.hint)


@pytest.mark.parametrize("name", ["output.partial", "output.partial.json"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo"])
def test_a_planted_file_is_refused_and_not_followed(tmp_path, name, kind):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = tmp_path / name
    {
        "link": lambda: planted.symlink_to(victim),
        "dangling link": lambda: planted.symlink_to(tmp_path / "new"),
        "hard link": lambda: os.link(victim, planted),
        "fifo": lambda: os.mkfifo(planted),
    }[kind]()
    with pytest.raises(OutputError, match=f"{name} (is a symbolic link|is not a regular file|has a second name)"):
        perform(tmp_path / "output")
    assert victim.read_text() == "precious" and not (tmp_path / "new").exists()
    assert os.path.lexists(planted)


def test_a_planted_name_of_the_next_record_is_not_followed(tmp_path):
    (tmp_path / "output.partial.json.new").symlink_to("victim")
    (tmp_path / "output.partial.json.tmp").symlink_to("victim")
    perform(tmp_path / "output")
    assert not (tmp_path / "victim").exists()


def test_hints_can_be_pasted_whatever_the_name(tmp_path):
    output = tmp_path / "it is; rm -rf x" / "out put"
    output.parent.mkdir()
    with pytest.raises(Killed):
        perform(output, until=2)
    with pytest.raises(OutputError) as caught:
        perform(output, {**JOB, "top_k": 2})
    command = str(caught.value.hint).split("begin anew: ")[1]
    assert shlex.split(command) == ["rm", str(partial_path(output)), str(record_path(output))]
