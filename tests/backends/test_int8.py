"""The recipes to try, how the sensitivity of a product is measured, and rewrites that must not change numbers."""

import logging
import sys
from typing import Any, Dict, List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logits import logits as logits_of
from tiny_source import TinySource, difference, random_batch

from neuronbert.backends.openvino import backend as openvino
from neuronbert.backends.openvino import int8, int8_graph
from neuronbert.backends.outputs import Outputs
from neuronbert.backends.quiet import import_without_telemetry, stdout_to_stderr
from neuronbert.errors import BackendFailed

pytest.importorskip("openvino")
pytest.importorskip("nncf")


def test_the_ladder_gives_up_speed_step_by_step() -> None:
    steps = int8.int8_recipes(overflow_fix=True)
    assert steps[0]["smooth_quant_alpha"] == int8.DEFAULT_ALPHA
    costs = [(step["fp32_head"], step["fp32_share"]) for step in steps]
    assert costs == sorted(costs) and costs[0] == (False, 0.0) and costs[-1][1] > 0
    assert all(step["overflow_fix"] for step in steps)
    assert not any(step["overflow_fix"] for step in int8.int8_recipes(overflow_fix=False))
    assert {step["rest"] for step in steps} == {"f32"}
    assert [step["rest"] for step in int8.int8_recipes(False, rest="bf16")] == ["bf16"] * 3 + ["f32"] * 3


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_evenly_keeps_order_and_count(items: List[int], count: int) -> None:
    chosen = int8.evenly(list(enumerate(items)), count)
    assert len(chosen) == min(count, len(items)) and chosen == sorted(set(chosen))


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_rounding_error_is_small_for_smooth_data_and_scale_free(
    seed: int, tokens: int, inputs: int, outputs: int
) -> None:
    random = np.random.default_rng(seed)
    activations = random.uniform(-1, 3, (tokens, inputs)).astype(np.float32)
    weights = random.uniform(0.5, 1, (outputs, inputs)).astype(np.float32)
    error = int8.rounding_error(activations, weights)
    assert 0 <= error
    assert int8.rounding_error(activations * 8, weights * 0.25) == pytest.approx(error, rel=1e-3, abs=1e-6)
    assert int8.rounding_error(activations * 0, weights) == 0
    assert int8.rounding_error(activations, weights * 0) == 0


def test_an_outlier_makes_a_product_sensitive() -> None:
    random = np.random.default_rng(0)
    activations, weights = random.normal(size=(50, 32)), random.normal(size=(16, 32))
    calm = int8.rounding_error(activations, weights)
    activations[:, 3] *= 100
    weights[:, 3] = 0  # the outlier does not even reach the output
    assert int8.rounding_error(activations, weights) > 10 * calm > 0


@pytest.fixture(scope="module")
def converted() -> Any:
    return openvino._convert(TinySource())


@pytest.fixture(scope="module")
def texts() -> List[Dict[str, np.ndarray]]:
    return [random_batch(1, tokens, seed=tokens)._asdict() for tokens in range(6, 40)]


def test_products_are_found_in_order_and_the_head_is_last(converted: Any) -> None:
    products = int8.weighted_products(converted)
    assert len(products) == 2 * 6 + 1
    assert "layer.0" in products[0].name and "qa_outputs" in products[-1].name
    assert products[-1].weights.shape == (2, 32)


def test_observe_sees_what_the_model_computes(converted: Any, texts: List[Dict[str, np.ndarray]]) -> None:
    head = int8.weighted_products(converted)[-1]
    hidden = head.node.input_value(0).get_node().get_friendly_name()
    seen = int8.observe(converted, [hidden, head.name], texts[:3])
    assert seen[0].shape == (6 + 7 + 8, 32)
    np.testing.assert_allclose(seen[0] @ head.weights.T, seen[1], rtol=1e-3, atol=1e-3)


def test_the_most_sensitive_products_stay_in_fp32(texts: List[Dict[str, np.ndarray]]) -> None:
    source = TinySource()
    import torch

    with torch.no_grad():  # one channel of the second layer's feed-forward input dwarfs the others
        source.torch_model().model.bert.encoder.layer[1].attention.output.LayerNorm.weight[5] = 400.0
        source.torch_model().model.bert.encoder.layer[1].intermediate.dense.weight[:, 5] = 0.0
    model = openvino._convert(source)
    recipe = dict(int8.int8_recipes(False)[-1], fp32_share=0.05)
    _, recorded = int8.quantize(model, texts, recipe)
    assert len(recorded["fp32_products"]) == 2
    assert "qa_outputs" in recorded["fp32_products"][0]
    assert "layer.1.intermediate" in recorded["fp32_products"][1]


def test_int8_without_texts_is_refused(converted: Any) -> None:
    with pytest.raises(BackendFailed, match="calibration"):
        int8.quantize(converted, [], int8.int8_recipes(False)[0])


def test_the_application_s_logging_stays_as_it_was_and_nothing_is_printed(
    texts: List[Dict[str, np.ndarray]], capfd: pytest.CaptureFixture[str]
) -> None:
    import_without_telemetry("nncf")  # sets its level when it is imported
    handler = logging.StreamHandler()
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.addHandler(handler)
    try:
        model = openvino._convert(TinySource())
        capfd.readouterr()
        int8.quantize(model, texts, int8.int8_recipes(False)[0])
        assert capfd.readouterr() == ("", "")
    finally:
        logger.removeHandler(handler)
    assert handler.level == logging.NOTSET
    assert logger.level == before


def test_nncf_is_imported_under_the_stdout_that_its_log_keeps(
    texts: List[Dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def seen(name: str) -> Any:
        found.append(sys.stdout)
        return import_without_telemetry(name)

    monkeypatch.setattr(int8, "import_without_telemetry", seen)
    int8.quantize(openvino._convert(TinySource()), texts, int8.int8_recipes(False)[0])
    assert found[0] is sys.stdout


def run(model: Any, batch: Any) -> Outputs:
    core = import_without_telemetry("openvino").Core()
    results = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch._asdict())
    return logits_of(results[0], results[1])


def test_rewrites_fit_everywhere_and_change_nothing(converted: Any, texts: List[Dict[str, np.ndarray]]) -> None:
    recipe = int8.int8_recipes(False)[0]
    with stdout_to_stderr():
        plain = int8._nncf_quantize(converted, texts, recipe, int8_graph.table_readers(converted))
    rewritten = plain.clone()
    counts = int8_graph.rewrite(rewritten)
    assert counts["fold_value_scales"] == 2
    assert (
        counts["shift_activations"] == 2 * 4 + 1
    )  # before QKV, behind attention, before and inside the feed-forward; head
    exact = TinySource()
    for rows, tokens in ((1, 20), (3, 33)):
        batch = random_batch(rows, tokens, padding=5)
        loss = difference(run(plain, batch), exact.logits(batch), batch.attention_mask)
        change = difference(run(rewritten, batch), run(plain, batch), batch.attention_mask)
        # A value on the edge of two int8 steps may fall to the other side; that is less than int8 itself costs.
        assert change < max(loss, 0.02)


def test_shifted_activations_start_at_zero(converted: Any, texts: List[Dict[str, np.ndarray]]) -> None:
    quantized, _ = int8.quantize(converted, texts, int8.int8_recipes(False)[0])
    feeding = [node for node in quantized.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    lows = [
        float(node.input_value(3).get_node().get_data().reshape(-1)[0])
        for node in feeding
        if int8_graph._products_reading(node)
    ]
    assert len(lows) == 9 and not any(lows)


def test_large_tables_are_stored_in_half(tmp_path: Any) -> None:
    ov = import_without_telemetry("openvino")
    opset = import_without_telemetry("openvino.opset13")
    table = np.random.default_rng(0).normal(size=(1 << 13, 1 << 7)).astype(np.float32)
    ids = opset.parameter([-1], np.int64)
    model = ov.Model([opset.gather(opset.constant(table), ids, opset.constant(np.int64(0)))], [ids])
    assert int8_graph.halve_tables(model) == 1
    ov.save_model(model, str(tmp_path / "table.xml"), compress_to_fp16=False)
    assert (tmp_path / "table.bin").stat().st_size < table.nbytes * 0.6
    compiled = ov.Core().compile_model(str(tmp_path / "table.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = compiled([np.array([5, 8000])])[0]
    np.testing.assert_allclose(rows, table[[5, 8000]], rtol=1e-3, atol=1e-3)


def test_texts_are_counted_on_every_pass_over_them():
    told: list = []
    texts = int8.Counted([{"input_ids": np.ones((1, 3))}] * 2, lambda *step: told.append(step))
    assert len(list(texts)) == len(list(texts)) == len(texts) == 2
    assert told == [(f"calibration texts read, pass {number}", done, 2) for number in (1, 2) for done in (1, 2)]


def test_nncf_reads_every_text_to_the_last():
    pytest.importorskip("nncf")
    source, told = TinySource(), []
    texts = [{name: getattr(batch, name) for name in source.input_names} for batch in source.calibration()]
    int8.quantize(openvino._convert(source), texts, int8.int8_recipes(False)[0], lambda *step: told.append(step))
    assert told[-1][1:] == (len(texts), len(texts))
