"""neuronbert.compiler.kept_reference: what the FP32 reference said once is believed only where it still says so."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.compiler import gate, kept_reference
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.compiler.kept_reference import KeptReference
from neuronbert.errors import CheckpointError
from neuronbert.tasks.question_answering import gate as question_gate
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert.tasks.samples import gate_path

SPECS = (Output("start", PER_TOKEN, ()), Output("tags", PER_TOKEN, (3,)), Output("labels", PER_ROW, (2,)))


@pytest.fixture()
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference"


def checkpoint(fingerprint="abc", **config):
    return SimpleNamespace(fingerprint=fingerprint, config=config, head=SimpleNamespace(task="tagging"))


def rows_of(lengths, token=7):
    return [
        SimpleNamespace(input_ids=np.full(tokens, token), token_type_ids=np.zeros(tokens, np.int64))
        for tokens in lengths
    ]


def answers_of(rows, seed=0):
    values = np.random.default_rng(seed)
    return [
        {
            "start": values.normal(size=len(row.input_ids)).astype(np.float32),
            "tags": values.normal(size=(len(row.input_ids), 3)).astype(np.float32),
            "labels": values.normal(size=2).astype(np.float32),
        }
        for row in rows
    ]


def kept_of(rows, told=None, specs=SPECS, **facts):
    return KeptReference.of(checkpoint(**facts), specs, rows, [].append if told is None else told.append)


def said(answers):
    return lambda numbers: [answers[number] for number in numbers]


def never(numbers):
    raise AssertionError("there is nothing to compare with")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99))
def test_what_is_kept_comes_back(cache, lengths, seed):
    rows = rows_of(lengths, seed)
    answers, asked = answers_of(rows, seed), []
    kept_of(rows).keep(answers)
    found = kept_of(rows).read(lambda numbers: asked.extend(numbers) or said(answers)(numbers))
    for own, expected in zip(found, answers):
        assert all(np.array_equal(own[name], expected[name]) for name in expected)
    assert len(asked) == len(set(asked)) == min(len(rows), kept_reference.ASKED_AGAIN)


@pytest.mark.parametrize(
    "other", [{"fingerprint": "abd"}, {"hidden_act": "relu"}, {"rows": rows_of([3, 5])}, {"rows": rows_of([3, 4], 8)}]
)
def test_another_checkpoint_or_other_rows_find_nothing(cache, other):
    rows = rows_of([3, 4])
    kept_of(rows).keep(answers_of(rows))
    assert kept_of(other.pop("rows", rows), **other).read(never) is None


def test_what_the_reference_no_longer_says_is_not_believed(cache):
    rows, told = rows_of([3, 4, 5]), []
    kept_of(rows).keep(answers_of(rows))
    now = answers_of(rows)
    now[2]["labels"][1] += 1e-3
    assert kept_of(rows, told).read(said(now)) is None
    assert "is not what the reference says" in told[0]
    now[2]["labels"][1] = np.nan
    assert kept_of(rows).read(said(now)) is None


@pytest.mark.parametrize("damage", ["cut", "longer", "changed", "empty", "link"])
def test_a_damaged_file_is_as_none(cache, damage, tmp_path):
    rows = rows_of([3, 4])
    kept_of(rows).keep(answers_of(rows))
    (path,) = cache.iterdir()
    content = path.read_bytes()
    changed = {"cut": content[:-4], "longer": content + b"1234", "changed": content[:-1] + b"?", "empty": b""}
    path.write_bytes(changed.get(damage, content))
    if damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    assert kept_of(rows).read(never) is None


def test_where_it_cannot_be_kept_the_reason_is_told(cache):
    rows, told = rows_of([3]), []
    cache.parent.mkdir()
    cache.write_text("a file")
    kept_of(rows, told).keep(answers_of(rows))
    assert "are not kept for a later compile" in told[0] and "is not a folder" in told[0]
    assert kept_of(rows).read(never) is None


def test_outputs_of_unknown_shape_are_not_kept(cache):
    rows = rows_of([3])
    kept_of(rows, specs=(Output("hidden", PER_TOKEN),)).keep([{"hidden": np.zeros((3, 2), np.float32)}])
    assert not cache.exists()


def test_a_second_compile_asks_the_reference_a_few_rows_only(cache, tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(question_gate, "MIN_QUESTIONS", 20)
    monkeypatch.setattr(question_gate, "gate_questions", lambda *_: load_squad(gate_path())[:20])
    asked = []
    run = gate.infer_rows
    monkeypatch.setattr(
        gate, "infer_rows", lambda session, rows, *more: asked.append(len(rows)) or run(session, rows, *more)
    )
    artifacts, lines = [], []
    for name in ("first", "second"):
        artifacts.append(
            compile_checkpoint(
                tiny_checkpoint, tmp_path / name, backend="torchscript", precision="fp32", progress=lines.append
            )
        )
    assert (
        asked == [kept_reference.ASKED_AGAIN]
        and lines.count("they are those of an earlier compile of this checkpoint") == 1
    )
    first, second = (artifact.variants[0]["accuracy"] for artifact in artifacts)
    assert first == second and len(os.listdir(cache)) == 1


def test_nothing_is_refused_for_what_was_kept(cache, tmp_path, tiny_checkpoint, monkeypatch):
    """A row that was wrong once, and that is not among those asked again."""
    monkeypatch.setattr(question_gate, "MIN_QUESTIONS", 20)
    monkeypatch.setattr(question_gate, "gate_questions", lambda *_: load_squad(gate_path())[:20])
    keep = KeptReference.keep

    def keep_wrongly(self, outputs):
        wrong = [dict(row, start_logits=row["start_logits"] + 9 * (number == 3)) for number, row in enumerate(outputs)]
        keep(self, wrong)

    monkeypatch.setattr(KeptReference, "keep", keep_wrongly)
    lines, options = [], {"backend": "torchscript", "precision": "fp32"}
    first = compile_checkpoint(tiny_checkpoint, tmp_path / "first", **options)
    monkeypatch.setattr(KeptReference, "keep", keep)
    monkeypatch.setattr(kept_reference, "ASKED_AGAIN", 0)
    second = compile_checkpoint(tiny_checkpoint, tmp_path / "second", **options, progress=lines.append)
    assert "they are those of an earlier compile of this checkpoint" in lines
    assert first.variants[0]["accuracy"] == second.variants[0]["accuracy"]
    monkeypatch.setattr(kept_reference, "ASKED_AGAIN", 10**6)
    compile_checkpoint(tiny_checkpoint, tmp_path / "third", **options, progress=lines.append)
    assert not any("is not what the reference says" in line for line in lines)  # it was mended


def test_a_reference_that_gives_no_numbers_is_not_kept(cache, tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(gate, "all_finite", lambda outputs: False)
    with pytest.raises(CheckpointError, match="gives NaN or Inf"):
        compile_checkpoint(tiny_checkpoint, tmp_path / "out", backend="torchscript", precision="fp32")
    assert not cache.exists() or os.listdir(cache) == []


def test_what_was_kept_first_makes_room(cache, monkeypatch):
    rows = rows_of([3, 4])
    one = [kept_of(rows, fingerprint=str(number)) for number in range(4)]
    for age_s, kept in zip((30, 40, 20), one):
        kept.keep(answers_of(rows))
        written_s = (cache / kept.name).stat().st_mtime - age_s
        os.utime(cache / kept.name, (written_s, written_s))
    monkeypatch.setattr(kept_reference, "FOLDER_BYTES", 3 * (cache / one[0].name).stat().st_size)
    one[3].keep(answers_of(rows))
    assert {path.name for path in cache.iterdir()} == {one[0].name, one[2].name, one[3].name}
