"""What is particular to OpenVINO: flags it asks for, precision it reads back, padding it adds.

Not in a folder of its own, as the backend is: pytest puts tests/backends on the path, and where the library is not
installed a folder openvino there would be found in its place.
"""

import threading
import time
from types import SimpleNamespace
from typing import Any, Dict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_source import SIZES, TinySource, random_batch

from neuronbert.backends.openvino import backend as openvino
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.machine import VNNI
from neuronbert.tasks.question_answering.task import OUTPUTS


def test_bf16_names_the_flags_that_are_missing(monkeypatch) -> None:
    monkeypatch.setattr(openvino, "require_libraries", lambda *_: None)
    monkeypatch.setattr(openvino, "has_bf16", lambda: False)
    with pytest.raises(BackendUnavailable, match="avx512_bf16") as caught:
        openvino.check_available("bf16")
    assert "int8" in str(caught.value.hint)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_what_is_not_int8_runs_in_what_the_gate_saw_or_better(monkeypatch, has_bf16) -> None:
    monkeypatch.setattr(openvino, "has_bf16", lambda: has_bf16)
    beside = "bf16" if has_bf16 else "f32"
    assert openvino._hint({"precision": "int8", "recipe": {"rest": "bf16"}}) == beside
    assert openvino._hint({"precision": "int8", "recipe": {"rest": "f32"}}) == "f32"
    assert openvino._hint({"precision": "int8", "recipe": {}}) == "f32"
    assert openvino._hint({"precision": "bf16"}) == "bf16"
    assert openvino._hint({"precision": "fp32", "recipe": {}}) == "f32"
    assert openvino.recipes("int8")[0]["rest"] == beside


def test_only_int8_without_the_overflow_fix_needs_vnni() -> None:
    assert openvino._cpu_flags("int8", {"overflow_fix": False}) == [VNNI]
    assert openvino._cpu_flags("int8", {"overflow_fix": True}) == []
    assert openvino._cpu_flags("fp32", {}) == []


def compiled_with(*products: str) -> Any:
    """Something that describes itself as a compiled model does, with one product per precision given."""

    def node(kind: str, precision: str) -> Any:
        info = {"layerType": kind, "runtimePrecision": precision}
        return SimpleNamespace(
            get_rt_info=lambda: {
                key: SimpleNamespace(astype=lambda _, value=value: value) for key, value in info.items()
            }
        )

    nodes = [node("FullyConnected", precision) for precision in products] + [node("Eltwise", "f16")] * 9
    return SimpleNamespace(get_runtime_model=lambda: SimpleNamespace(get_ops=lambda: nodes))


def test_precision_is_that_of_most_products() -> None:
    assert openvino._precision(compiled_with("u8", "i8", "f32")) == ("int8", {"int8": 2, "fp32": 1})
    assert openvino._precision(compiled_with("bf16", "bf16"))[0] == "bf16"
    assert openvino._precision(compiled_with("i4"))[0] == "i4"
    with pytest.raises(BackendFailed, match="no matrix products"):
        openvino._precision(compiled_with())


@given(
    rows=st.integers(1, 3), tokens=st.integers(1, 70), limit=st.integers(1, 80), multiple=st.sampled_from((1, 8, 16))
)
def test_padding_is_masked_whole_and_within_the_limit(rows: int, tokens: int, limit: int, multiple: int) -> None:
    batch = random_batch(rows, tokens)
    padded = openvino.pad_tokens(batch, {"multiple": multiple, "limit": limit, "pad_id": 3})
    width = padded.input_ids.shape[1]
    assert width == tokens or (width % multiple == 0 and width < tokens + multiple and width <= limit)
    assert width == tokens or tokens % multiple
    for before, after, fill in zip(batch, padded, (3, 0, 0)):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after[:, :tokens], before)
        assert (after[:, tokens:] == fill).all()
    assert openvino.pad_tokens(batch, None) is batch


def test_padding_follows_the_size_of_the_heads() -> None:
    small: Dict[str, Any] = {"model_type": "bert", **SIZES}
    assert openvino._padding(small) == {"multiple": 16, "limit": 80, "pad_id": 0}
    assert openvino._padding({"model_type": "bert"})["multiple"] == 1  # BERT-base
    roberta = openvino._padding({**small, "model_type": "roberta"})
    assert (roberta["limit"], roberta["pad_id"]) == (78, 1)


def test_batches_that_wait_while_a_session_is_closed_are_refused(tmp_path: Any) -> None:
    pytest.importorskip("openvino")
    result = openvino.export(TinySource(), "fp32", {}, tmp_path)
    session = openvino.load(
        tmp_path, {"precision": "fp32", "recipe": result.recipe}, outputs=OUTPUTS, threads=1, streams=1
    )
    request = session._requests.get()  # as a run under way holds it
    ends = []

    def ask() -> None:
        try:
            ends.append(session.run(random_batch(1, 8)))
        except BackendFailed as error:
            ends.append(error)

    # Daemons: a batch that waits for ever must fail this test, not hang the run.
    waiters = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    closers = [threading.Thread(target=session.close, daemon=True) for _ in range(2)]
    for thread in waiters:
        thread.start()
    time.sleep(0.2)  # until they wait; the test holds for those that come later too
    for thread in closers:
        thread.start()
    session._requests.put(request)
    for thread in waiters + closers:
        thread.join(60)
    assert not any(thread.is_alive() for thread in waiters + closers)
    assert len(ends) == 3
    with pytest.raises(BackendFailed, match="closed"):
        session.run(random_batch(1, 8))
