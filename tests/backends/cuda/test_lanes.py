"""Lanes: the shapes that batches are recorded with, what growing to them changes, and a GPU where there is one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packed_models import TASKS, batch_of, encoder_source, exported, farthest
from tiny_source import TinySource, difference, random_batch

from neuronbert.backends.cuda import backend
from neuronbert.backends.cuda.graph import Graph, load_graph
from neuronbert.backends.cuda.packing import LONGEST_STEPS, ROW_STEPS, TOKEN_STEPS, Packed, grown, pack, unpacked
from neuronbert.errors import BackendUnavailable
from neuronbert.tasks.feature_extraction.modules import POOLINGS, SentenceModules

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

from neuronbert.backends.cuda.lanes import MOST_GRAPHS, GpuLane, Lane, _joined, _Shape, _views  # noqa: E402  # they import torch
from neuronbert.backends.cuda.session import make_encoder  # noqa: E402
from neuronbert.backends.cuda.weights import load_weights  # noqa: E402

CPU = torch.device("cpu")


def planning_lane(*recorded: Any, pads: bool = False) -> Any:
    """A GPU's lane that is asked for shapes only: it needs no stream."""
    lane: Any = GpuLane.__new__(GpuLane)
    lane._encoder = SimpleNamespace(pads=pads)
    lane._graphs, lane._most_graphs = dict.fromkeys(recorded), MOST_GRAPHS
    return lane


def packed_rows(lengths: List[int]) -> Packed:
    zeros = np.zeros(sum(lengths), dtype=np.int32)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return Packed(zeros, zeros, zeros, zeros, zeros, starts, max(lengths))


LENGTHS = st.one_of(
    st.lists(st.one_of(st.integers(0, 40), st.integers(0, 512)), min_size=1, max_size=60),
    st.lists(st.integers(0, 3), min_size=1, max_size=60).map(lambda few: few * 8),
).filter(any)


@example([10] * 65)  # what is added is longer than any of them
@given(LENGTHS)
def test_a_grown_shape_holds_the_batch_that_it_is_grown_to(lengths: List[int]) -> None:
    packed = packed_rows(lengths)
    shape = planning_lane()._grown_shape(packed)
    large = grown(packed, shape.tokens, shape.rows - 1)
    assert (large.tokens, large.row_count) == (shape.tokens, shape.rows)
    assert large.longest <= shape.longest
    assert shape.tokens in TOKEN_STEPS and shape.rows - 1 in ROW_STEPS and shape.longest in LONGEST_STEPS


@pytest.mark.parametrize(
    ("lengths", "is_recorded"),
    [
        ([16384], True),
        ([16385], False),
        ([1] * 512, True),
        ([1] * 513, False),
        ([0] * 511 + [16384], True),
        ([1], True),
    ],
)
def test_what_is_too_much_for_any_recording_runs_without(lengths: List[int], is_recorded: bool) -> None:
    assert (planning_lane()._grown_shape(packed_rows(lengths)) is not None) == is_recorded


@given(LENGTHS)
def test_where_attention_pads_no_row_is_recorded_beside_a_longer_one(lengths: List[int]) -> None:
    """500 rows of 31 tokens were 34 times the tokens, and what that takes stays with the recording."""
    packed = packed_rows(lengths)
    shape = planning_lane(pads=True)._grown_shape(packed)
    assert (shape is not None) == (len(lengths) == 1)
    assert shape is None or shape.rows * shape.longest <= 2 * 4 * max(32, packed.tokens)


@pytest.mark.parametrize("tokens", [1, 3, 4, 32, 37])
def test_every_array_of_a_batch_begins_where_kernels_are_compiled_for(tokens: int) -> None:
    arrays = [np.arange(tokens, dtype=np.int32) + 100 * number for number in range(5)]
    packed = Packed(*arrays, np.array([0, 2, tokens], dtype=np.int32), tokens)  # type: ignore[call-arg, arg-type]
    inputs = _views(torch.from_numpy(_joined(packed)), _Shape.of(packed))
    found = [inputs.ids, inputs.positions, inputs.types, inputs.rows.places, inputs.rows.rows, inputs.rows.starts]
    assert [array.storage_offset() * 4 % 16 for array in found] == [0] * 6
    assert [array.tolist() for array in found] == [array.tolist() for array in (*arrays, packed.starts)]


def test_a_shape_depends_on_the_batch_alone() -> None:
    """Else the last bits of a result would depend on what its lane has recorded before."""
    shape = planning_lane()._grown_shape(packed_rows([20]))
    full = planning_lane(*(shape._replace(rows=1000 + number) for number in range(MOST_GRAPHS)))
    assert full._grown_shape(packed_rows([20])) == planning_lane(shape)._grown_shape(packed_rows([20])) == shape


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every pooling, and the tokens; with its source."""
    source = encoder_source(SentenceModules(POOLINGS, include_prompt=False))
    folder = exported(source, tmp_path_factory.mktemp("variant"))
    graph: Graph = load_graph(folder)
    return source, graph, Lane(make_encoder(graph, load_weights(folder, graph, "fp32", CPU), CPU))


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any))
def test_growing_changes_no_output(lane: Any, lengths: List[int]) -> None:
    source, graph, runs = lane
    batch = batch_of(np.arange(41)[None, :] < np.array(lengths)[:, None])
    packed = pack(batch, graph)
    shape = planning_lane()._grown_shape(packed)
    large = grown(packed, shape.tokens, shape.rows - 1)._replace(longest=shape.longest)
    with torch.inference_mode():
        expected = unpacked(runs.run(packed), source.outputs, batch)
        found = unpacked(runs.run(large), source.outputs, batch)
    largest = farthest(expected, {name: np.zeros_like(array) for name, array in expected.items()}, source, batch)
    # 13 steps of FP32 at the largest number: a product of more rows adds in another order, and the sums of
    # mean_sqrt_len are larger than 1 (a difference of 5.7e-6 in numbers to 9.7 was seen, 5 steps).
    assert farthest(found, expected, source, batch) < 1.5e-6 * largest
    assert all(np.isfinite(array).all() for array in found.values())


# ---------------------------------------------------------------------- on a GPU

# As a share of the spread of a random model's outputs.
TOLERANCES = {"fp32": 1e-4, "tf32": 0.01, "bf16": 0.05, "fp16": 0.01, "fp8": 0.3}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_a_gpu_agrees_recorded_or_not_from_several_threads(tmp_path: Path, model_type: str, precision: str) -> None:
    try:
        backend.check_available(precision)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    # Heads of 16: our own attention.
    source = TinySource(model_type, hidden_size=64, num_attention_heads=4, intermediate_size=128)
    exported(source, tmp_path, precision)
    session = backend.load(tmp_path, {"precision": precision}, outputs=source.outputs, threads=1, streams=2)
    assert session.precision == precision
    batches = [random_batch(1 + seed % 4, 3 + 11 * (seed % 7), seed=seed, padding=1) for seed in range(28)]
    batches += [random_batch(600, 40, seed=1), batch_of(np.zeros((2, 5)))]  # more rows than any recording; no tokens
    for _ in range(2):  # the second time from recordings
        with ThreadPoolExecutor(3) as pool:
            for found, batch in zip(pool.map(session.run, batches), batches):
                if batch.attention_mask.any():
                    assert difference(found, source.logits(batch), batch.attention_mask) < TOLERANCES[precision]
    session.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", TASKS)
def test_a_gpu_agrees_on_every_task(tmp_path: Path, name: str) -> None:
    source = TinySource("bert", TASKS[name])
    exported(source, tmp_path, "fp32")
    session = backend.load(tmp_path, {"precision": "fp32"}, outputs=source.outputs, threads=1, streams=1)
    for batch in (random_batch(3, 20, padding=6), random_batch(1, 1), random_batch(5, 33, padding=8)):
        assert farthest(session.run(batch), source.logits(batch), source, batch) < 2e-4
    session.close()
