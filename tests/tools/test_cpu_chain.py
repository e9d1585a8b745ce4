"""tools/cpu_chain: samples, choices, factors and the picture by themselves, readers on tiny models, and a whole run."""

import io
import json
import sys
import xml.etree.ElementTree
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs
from neuronbert.errors import UsageError
from neuronbert.hardware.machine import environment
from neuronbert.tasks.base import Document
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert_tools import compiled, cpu_chain
from neuronbert_tools.chain import models, readers, steps, summary, waterfall
from neuronbert_tools.chain.measuring import Measured, spread_sample
from neuronbert_tools.chain.readers import CachedReader, Configuration
from neuronbert_tools.chain.steps import Step
from neuronbert_tools.questions import Pair, squad_pairs
from neuronbert_tools.server.asking import with_repeats

if sys.version_info < (3, 11):
    pytest.skip("what lies under tools/ is for the current stack's Pythons", allow_module_level=True)
for library in ("openvino", "nncf", "cachetools", "msgspec", "matplotlib"):
    pytest.importorskip(library)

XQUAD = Path(__file__).resolve().parents[1] / "data" / "xquad" / "xquad-en.json"
RATES = st.floats(0.01, 1000)


# ---------------------------------------------------------------------------- samples


@given(total=st.integers(1, 300), data=st.data(), phase=st.floats(0, 0.999))
def test_a_sample_is_spread_over_all(total: int, data: st.DataObject, phase: float) -> None:
    count = data.draw(st.integers(1, total))
    found = sorted(spread_sample(range(total), count, phase))
    assert len(set(found)) == count
    assert all(number * total / count - 1 < item < (number + 1) * total / count for number, item in enumerate(found))


# ---------------------------------------------------------------------------- what was measured, in figures

CHAIN = (  # the name, what it changes, whether it was taken
    ("base", None, True),
    ("student", "base", True),
    ("lengths", "student", True),
    ("int8", "lengths", False),
    ("streams", "lengths", True),
    ("cache", "streams", True),
)


def chain_of(names: Sequence[Any] = CHAIN) -> List[Step]:
    return [
        Step(
            name,
            f"the step {name}",
            Configuration(models.STUDENT, "openvino", models.FP32, cached=name == "cache"),
            before,
            taken,
            {} if name != "int8" else {"openvino-int8": 0.5},
        )
        for name, before, taken in names
    ]


def measured_of(rates: Dict[str, List[float]]) -> Dict[str, Measured]:
    return {
        name: Measured(None if name == "base" else 70.0, 10, found, [5.0, 6.0, 7.0], 0.4 if name == "cache" else None)
        for name, found in rates.items()
    }


@given(st.lists(st.lists(RATES, min_size=len(CHAIN), max_size=len(CHAIN)), min_size=1, max_size=5))
def test_factors_are_of_one_round_and_of_the_last_step_that_was_taken(rounds: List[List[float]]) -> None:
    rates = {name: [rates[number] for rates in rounds] for number, (name, *_) in enumerate(CHAIN)}
    found = {step["name"]: step for step in summary.step_documents(chain_of(), measured_of(rates))}
    assert found["base"]["factor"] is None and found["base"]["factor_of_first"]["median"] == 1
    streams = sorted(streams / lengths for streams, lengths in zip(rates["streams"], rates["lengths"]))
    assert found["streams"]["factor"]["low"] == streams[0] and found["streams"]["factor"]["high"] == streams[-1]
    # Where there is one round, the factors of what was taken multiply to the whole.
    if len(rounds) == 1:
        taken = [step["factor"]["median"] for step in found.values() if step["taken"] and step["factor"]]
        assert np.prod(taken) == pytest.approx(found["cache"]["factor_of_first"]["median"])
    (goal,) = summary.goals_of(list(found.values()))
    assert goal.value == found["streams"]["factor_of_first"]["median"] and goal.met == (goal.value >= 30)


def report_of(rates: Dict[str, float]) -> Dict[str, Any]:
    documents = summary.step_documents(chain_of(), measured_of({name: [rate] for name, rate in rates.items()}))
    return {
        "machine": environment(),
        "threads": 2,
        "workload": {"data": "xquad.json", "questions": 10, "rounds": 1},
        "steps": documents,
        "goals": [goal.document() for goal in summary.goals_of(documents)],
        "notes": summary.notes_of(documents, {"base": {"random_weights": True}}),
    }


EXAMPLE = {"base": 1.0, "student": 8.0, "lengths": 20.0, "int8": 10.0, "streams": 31.0, "cache": 50.0}


def test_a_choice_that_the_rounds_do_not_bear_out_is_told() -> None:
    notes = "\n".join(report_of({**EXAMPLE, "int8": 25.0})["notes"])
    assert "the step int8: the rounds say otherwise" in notes


def test_the_table_says_what_was_taken_and_why() -> None:
    text = summary.render(report_of(EXAMPLE))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert lines["the step base"].split()[-2:] == ["-", "1.0"]
    assert lines["the step int8"].endswith("70.00  0.50      10.0     not taken")
    assert lines["the step cache"].split()[-2:] == ["1.61", "50.0"]
    outcome = "the step int8: not taken, for want of 1.03 times the rate before."
    assert f"{outcome} A probe before the rounds: openvino-int8: × 0.50." in text
    assert "the step cache: 40.0% of the questions were answered from it." in text
    assert "BERT-base has random weights" in text
    assert "met     times the questions/s, before the cache: 31, at least 30" in text
    assert environment()["cpu_model"] in text


# ---------------------------------------------------------------------------- the picture


@given(st.lists(RATES, min_size=len(CHAIN), max_size=len(CHAIN)))
def test_a_bar_begins_where_the_last_that_was_taken_ends(rates: List[float]) -> None:
    by_name = {name: rate for (name, *_), rate in zip(CHAIN, rates)}
    bars = dict(zip(by_name, waterfall.bars_of(report_of(by_name)["steps"])))
    assert 0 < bars["base"].start < bars["base"].end
    for name, before, taken in CHAIN:
        assert bars[name].end == by_name[name] and bars[name].taken == taken
        assert before is None or bars[name].start == by_name[before]


def test_texts_of_the_picture_do_not_overlap(tmp_path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    report = report_of(EXAMPLE)
    report["steps"] = [{**step, "title": "batches of similar lengths, 2 streams"} for step in report["steps"]]
    figure = waterfall._figure(report)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    texts = [text for text in (*axes.texts, *axes.get_xticklabels(), *figure.texts, axes.title) if text.get_text()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    overlapping = [
        (one.get_text(), other.get_text())
        for number, (one, box) in enumerate(zip(texts, boxes))
        for other, other_box in list(zip(texts, boxes))[:number]
        if box.overlaps(other_box)
    ]
    assert overlapping == []
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


# ---------------------------------------------------------------------------- which steps are taken


@pytest.mark.parametrize(
    ("threads", "streams"),
    [(1, [1]), (2, [2]), (3, [3]), (4, [4, 2]), (6, [6, 3]), (8, [8, 4, 2]), (96, [96, 48, 24, 12, 6, 3])],
)
def test_streams_to_try(threads: int, streams: List[int]) -> None:
    assert steps.streams_to_try(threads) == streams


class Rates:
    """In place of measuring: each configuration's rate."""

    def __init__(self, rate: Any):
        self.rate = rate
        self.threads = 4
        self.models = self
        self.base_name = "BERT-base"


def chosen(
    monkeypatch: pytest.MonkeyPatch, rate: Any, backends: Sequence[str] = ("openvino", "onnxruntime")
) -> Dict[str, Step]:
    def turn(self: Any, configuration: Configuration) -> Any:
        return lambda: {"questions_per_s": rate(configuration)}

    monkeypatch.setattr(steps._Chain, "_turn", turn)
    found = steps.choose_steps(Rates(rate), backends, 384, [])  # type: ignore[arg-type]
    return {step.name: step for step in found}


NAMES = ["base", "student", "lengths", "engine", "int8", "streams", "batches", "cache"]


def test_what_is_faster_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, lambda one: (one.precision == "int8") + (one.backend == "onnxruntime") + one.streams
                   + 9 * one.batched)  # fmt: skip
    assert list(found) == NAMES and all(step.taken for step in found.values())
    assert [step.before for step in found.values()] == [None, *NAMES[:-1]]
    last = Configuration("student", "onnxruntime", "int8", streams=4, batched=True, cached=True)
    assert found["cache"].configuration == last
    named = "student, onnxruntime-int8, "
    assert found["streams"].probed == {f"{named}4 streams": 2.0, f"{named}2 streams": 4 / 3}
    assert found["engine"].title == "another engine (onnxruntime)"
    assert found["engine"].probed == {"student, onnxruntime-fp32, 1 stream": 2.0}
    assert found["int8"].title == "int8 (onnxruntime)" and found["streams"].title == "4 streams on 4 threads"


def test_what_is_slower_is_shown_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, lambda one: 9 / one.streams - (one.precision == "int8") - one.batched)
    assert [name for name, step in found.items() if not step.taken] == ["engine", "int8", "streams", "batches"]
    assert {found[name].before for name in ("engine", "int8", "streams", "batches", "cache")} == {"lengths"}
    assert found["cache"].configuration == found["lengths"].configuration._replace(cached=True)
    assert found["batches"].configuration.precision == "fp32" and found["batches"].configuration.batched


def test_without_another_engine_there_is_no_step_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, lambda one: one.streams, ["openvino"])
    assert list(found) == [name for name in NAMES if name != "engine"]


# ---------------------------------------------------------------------------- readers


class Echo:
    """A reader that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: List[Pair] = []

    def answer(self, pair: Pair) -> Document:
        return self.answer_together([pair])[0]

    def answer_together(self, pairs: Sequence[Pair]) -> List[Document]:
        self.asked += pairs
        return [{"answer": question.upper()} for question, _ in pairs]


@given(count=st.integers(2, 60), share=st.floats(0, 0.7), together=st.booleans())
def test_a_cache_answers_what_was_asked_before(count: int, share: float, together: bool) -> None:
    asked = with_repeats([(f"question {number}", "text") for number in range(count)], count, share)
    echo = Echo()
    cached = CachedReader(echo, ("model",))
    found = cached.answer_together(asked) if together else [cached.answer(pair) for pair in asked]
    assert [answer["answer"] for answer in found] == [question.upper() for question, _ in asked]
    assert echo.asked == list(dict.fromkeys(asked))
    assert cached.hit_rate == pytest.approx(round(count * share) / count)
    cached.empty()
    assert cached.answer(asked[0]) == found[0] and cached.hit_rate == 0


# ---------------------------------------------------------------------------- with tiny models

BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that runs keep their artifacts in."""
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def ran(work: Path, tiny_checkpoint: Path) -> Tuple[Dict[str, Any], str]:
    """A run's report, and what it said beside it."""
    tiny = ["--base", str(tiny_checkpoint), "--student", str(tiny_checkpoint), "--skip-gate", "--work", str(work)]
    small = ["--count", "10", "--rounds", "2", "--seconds-per-step", "0.02", "--threads", "2"]
    out, told = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(told):
        code = cpu_chain.main([*tiny, *small, "--json", "--plot", str(work / "chain.svg")])
    report = json.loads(out.getvalue())  # one document, and nothing else
    assert code == int(not report["goals"][0]["met"])
    return report, told.getvalue()


def test_a_run_measures_every_step(ran: Tuple[Dict[str, Any], str], work: Path, tiny_checkpoint: Path) -> None:
    report, told = ran
    found = {step["name"]: step for step in report["steps"]}
    assert list(found) == NAMES
    for step in found.values():
        assert step["questions_per_s"]["low"] > 0 and len(step["rounds"]) == 2
        assert 0 <= step["f1"] <= 100 and 16 <= step["latency_ms"]["count"] <= 20
        assert 0 < step["latency_ms"]["p50"] <= step["latency_ms"]["p99"]
    # The same rows with the same weights, whether they are padded or not.
    assert found["base"]["f1"] == found["student"]["f1"] == found["lengths"]["f1"]
    assert found["base"]["title"] == f"{tiny_checkpoint.name}, FP32, padded to 512"
    asked = found["cache"]["questions_per_round"]
    assert found["cache"]["hit_rate"] == pytest.approx(round(asked * 0.4) / asked)
    assert report["models"]["base"]["random_weights"] is False
    assert report["workload"]["questions"] == 10 and report["threads"] == 2
    assert f"the result cache: {found['cache']['hit_rate']:.1%} of the questions were answered from it." in told
    assert xml.etree.ElementTree.parse(work / "chain.svg").getroot().tag.endswith("svg")


@pytest.fixture()
def opened(
    ran: Tuple[Dict[str, Any], str], work: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[readers.Readers]:
    """Readers of what that run has compiled: nothing is compiled again."""
    monkeypatch.delattr(compiled, "compile_checkpoint")
    found = models.prepare(str(tiny_checkpoint), str(tiny_checkpoint), BACKENDS, work, skip_gate=True)
    with ExitStack() as stack:
        yield readers.Readers(found, 2, AnswerOptions(), stack)


PADDED = Configuration(models.BASE, "openvino", models.FP32, padded_to=400)
NATURAL = Configuration(models.STUDENT, "openvino", models.FP32)


@pytest.mark.parametrize(
    "configuration",
    [
        PADDED,
        PADDED._replace(model=models.STUDENT),
        NATURAL,
        NATURAL._replace(backend="onnxruntime"),
        NATURAL._replace(precision=models.INT8),
        NATURAL._replace(backend="onnxruntime", precision=models.INT8, streams=2),
        NATURAL._replace(streams=2),
        NATURAL._replace(streams=2, batched=True),
    ],
    ids=str,
)
def test_a_reader_does_what_its_configuration_says(configuration: Configuration, opened: readers.Readers) -> None:
    reader = opened.engine_reader(configuration)
    session, batches = reader.engine.session, []
    run = session.run

    def noted(batch: Batch) -> Outputs:
        batches.append((batch.input_ids.shape, batch.attention_mask.sum(axis=1).tolist()))
        return run(batch)

    session.run = noted  # type: ignore[method-assign]
    assert session.precision == configuration.precision and session.concurrency == configuration.streams
    pairs = list(squad_pairs(XQUAD))[:6]
    answers = reader.answer_together(pairs)
    assert [reader.answer(pair)["answer"] for pair in pairs] == [answer["answer"] for answer in answers]
    rows = [tokens for _, lengths in batches for tokens in lengths]
    if configuration.padded_to:
        assert {shape for shape, _ in batches} == {(1, 400)} and max(rows) <= 384
    elif configuration.batched:
        assert max(shape[0] for shape, _ in batches) > 1
    else:
        assert all(shape == (1, *lengths) for shape, lengths in batches)


def test_rows_are_padded_to_what_fits(opened: readers.Readers) -> None:
    artifacts = [opened.models.base]
    assert readers.longest_row(artifacts, None) == 512 and readers.longest_row(artifacts, 384) == 384
    for tokens in (383, 513):
        with pytest.raises(UsageError, match=f"384 tokens cannot be padded to {tokens} where the models have 512"):
            readers.longest_row(artifacts, tokens)


def test_engines_are_loaded_once(opened: readers.Readers) -> None:
    assert opened.engine_reader(NATURAL) is opened.engine_reader(NATURAL)
    cached = opened.reader(NATURAL._replace(cached=True))
    assert isinstance(cached, CachedReader) and cached is not opened.reader(NATURAL._replace(cached=True))


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "2000"], "2000 questions are more than the 1190 of"),
        (["--backends", "cuda"], "cuda is no CPU backend with FP32 and int8"),
        (["--backends", "echo"], "echo is no CPU backend"),
        (["--backends", "none"], "there is no backend 'none'"),
        (["--plot", "chain.pdf"], "a picture is not drawn as .pdf"),
    ],
)
def test_options_are_refused_before_anything_is_compiled(arguments: List[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        cpu_chain.main([*arguments, "--work", str(tmp_path / "work")])
    assert not (tmp_path / "work").exists()
