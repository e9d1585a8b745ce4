import json
from pathlib import Path

import pytest

from neuronbert.tasks import samples
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad, load_squad_data
from neuronbert.tasks.samples import calibration_path, gate_path
from neuronbert_tools import make_samples


@pytest.fixture(scope="module")
def gate():
    return load_squad_data(gate_path())


@pytest.fixture(scope="module")
def calibration():
    return load_squad_data(calibration_path())


def test_they_hold_as_many_questions_as_the_readme_says(gate, calibration):
    assert (gate.version, len(gate.questions), len({item.context for item in gate.questions})) == ("1.1", 600, 300)
    assert (len(calibration.questions), len({item.context for item in calibration.questions})) == (200, 200)


def test_no_paragraph_is_in_both(gate, calibration):
    assert not {item.context for item in gate.questions} & {item.context for item in calibration.questions}


def test_every_answer_stands_where_the_file_says(gate, calibration):
    for item in gate.questions + calibration.questions:
        assert item.answers
        for text, start in zip(item.answers, item.answer_starts):
            assert item.context[start : start + len(text)] == text


def test_short_and_long_paragraphs_are_spread_over_the_file(gate):
    """So that the first questions are a fair sample too."""
    lengths = [len(item.context) for item in gate.questions]
    mean = sum(lengths) / len(lengths)
    assert max(lengths) > 3 * min(lengths)
    assert abs(sum(lengths[:200]) / 200 - mean) < 0.15 * mean


def test_they_ship_with_their_attribution_and_stay_small():
    folder = Path(samples.__file__).parent
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in readme and "SQuADShifts" in readme and "ICML 2020" in readme
    assert sum(path.stat().st_size for path in folder.glob("*.json")) < 1_000_000


def source(name, paragraphs):
    return [
        SquadQuestion(f"{name}-{index}-{ask}", "Q?", f"{name} {index} " + "x" * index, ("x",), False, (0,))
        for index in range(paragraphs)
        for ask in range(4)
    ]


def test_the_tool_draws_disjoint_paragraphs_evenly():
    sources = [source(name, 400) for name in "abc"]
    drawn = make_samples.choose_samples(sources, seed=0)
    contexts = {name: {item.context for item in questions} for name, questions in drawn.items()}
    assert {name: len(questions) for name, questions in drawn.items()} == {"gate": 600, "calibration": 200}
    assert not contexts["gate"] & contexts["calibration"]
    for name in "abc":
        own = sorted(len(text) for text in contexts["gate"] if text.startswith(name))
        assert len(own) == 100
        # One from each of a hundred strata of four lengths: the middle of the drawn is the middle of the source.
        assert abs(own[50] - 200) < 10
    assert drawn == make_samples.choose_samples(sources, seed=0)
    assert drawn != make_samples.choose_samples(sources, seed=1)


def test_the_tool_says_when_a_source_is_too_small():
    with pytest.raises(SystemExit, match="100 paragraphs are needed of a source, only 10 are left"):
        make_samples.choose_samples([source(name, 10) for name in "abc"], seed=0)


def test_the_tool_writes_files_that_load(tmp_path):
    from neuronbert.tasks.question_answering.squad import squad_document

    for name in "abc":
        (tmp_path / f"{name}.json").write_text(json.dumps(squad_document(source(name, 300), "1.1")))
    arguments = [str(tmp_path / f"{name}.json") for name in "abc"] + ["--output", str(tmp_path)]
    assert make_samples.main(arguments) == 0
    assert len(load_squad(tmp_path / "gate.json")) == 600
