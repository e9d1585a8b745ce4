"""Echo's logits: a fixed function of each row, bounded, and zero where there is padding."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_source import TinySource, random_batch

from neuronbert.backends import echo
from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.errors import BackendFailed
from neuronbert.tasks.question_answering.task import OUTPUTS


def session(streams: int = 1) -> echo.EchoSession:
    return echo.EchoSession(echo.MULTIPLIER, echo.MODULUS, streams, faults={}, outputs=OUTPUTS)


@given(st.integers(1, 4), st.integers(1, 50), st.integers(0, 9))
def test_rows_are_independent_and_padding_is_zero(rows: int, tokens: int, seed: int) -> None:
    batch = random_batch(rows, tokens, seed=seed, padding=tokens // 5)
    logits = session().run(batch)
    assert logits["start_logits"].dtype == np.float32 and logits["start_logits"].shape == (rows, tokens)
    for side in logits.values():
        assert (np.abs(side) <= echo.LOGIT_RANGE).all() and not side[batch.attention_mask == 0].any()
    last = Batch(*(field[-1:] for field in batch))
    np.testing.assert_array_equal(session().run(last)["end_logits"][0], logits["end_logits"][-1])


def test_logits_differ_between_tokens_sides_and_types() -> None:
    batch = random_batch(1, 60)
    logits = session().run(batch)
    assert len(set(logits["start_logits"][0])) > 40 and not np.array_equal(logits["start_logits"], logits["end_logits"])
    other = batch._replace(token_type_ids=1 - batch.token_type_ids)
    assert not np.array_equal(session().run(other)["start_logits"], logits["start_logits"])


def test_what_is_exported_can_be_loaded_and_damage_is_named(tmp_path: Path) -> None:
    echo.export(TinySource(), "fp32", {}, tmp_path)
    assert set(json.loads((tmp_path / echo.FILE_NAME).read_text())) == {"multiplier", "modulus"}
    loaded = echo.load(tmp_path, {"precision": "fp32"}, outputs=OUTPUTS, threads=2, streams=2)
    assert loaded.concurrency == 2 and loaded.precision == "fp32"
    np.testing.assert_array_equal(
        loaded.run(random_batch(2, 9))["start_logits"], session().run(random_batch(2, 9))["start_logits"]
    )
    (tmp_path / echo.FILE_NAME).write_text(json.dumps({"multiplier": 3}))
    with pytest.raises(BackendFailed, match="modulus"):
        echo.load(tmp_path, {}, outputs=OUTPUTS, threads=1, streams=1)


def test_outputs_of_any_shape_are_hashed() -> None:
    """As many numbers for a token or a row as the model gives, all of them different."""
    outputs = [Output("labels", PER_ROW), Output("tags", PER_TOKEN), Output("length", PER_ROW)]
    entries = {"labels": (3,), "tags": (2, 2)}
    made = echo.EchoSession(echo.MULTIPLIER, echo.MODULUS, 1, faults={}, outputs=outputs, entries=entries)
    batch = random_batch(2, 9, padding=3)
    found = made.run(batch)
    assert {name: array.shape for name, array in found.items()} == {
        "labels": (2, 3),
        "tags": (2, 9, 2, 2),
        "length": (2,),
    }
    assert len(set(found["labels"].ravel())) == 6 and not found["tags"][batch.attention_mask == 0].any()


@pytest.mark.parametrize("settings", [{"faults": {"7": "kill"}}, {"batch_s": 3600}])
def test_what_fails_on_purpose_is_loaded_only_where_that_is_wanted(tmp_path, monkeypatch, settings):
    """An artifact may be a stranger's, and its engine ends or holds up the process that answers with it."""
    facts = {"multiplier": echo.MULTIPLIER, "modulus": echo.MODULUS, **settings}
    (tmp_path / echo.FILE_NAME).write_text(json.dumps(facts))
    echo.load(tmp_path, {}, outputs=OUTPUTS, threads=1, streams=1)
    monkeypatch.delenv(echo.FAULTS_VARIABLE)
    with pytest.raises(BackendFailed, match="has this process take time or end"):
        echo.load(tmp_path, {}, outputs=OUTPUTS, threads=1, streams=1)
