"""neuronbert.compiler.row_selection: what reading few windows costs is measured, and refused where it is too much."""

from types import SimpleNamespace

import numpy as np
import pytest
from logits import logits
from neuronbert_demo import FOLDER as DEMO

from neuronbert import Engine, Runner
from neuronbert.backends.base import ThroughputPlan
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.cli.tables import manifest_table
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.compiler.row_selection import RowSelectionTrial
from neuronbert.errors import GateRefused, InputError, UsageError
from neuronbert.tasks.base import GateLimits
from neuronbert.tasks.question_answering import gate
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.squad import SquadQuestion

FILLER = "The coat is green and old and nobody knows who made it for the puppet in all those years. "
PAIR = ("Where is the frog?", FILLER * 20 + "The frog sits in the pond. " + FILLER * 20)


class WordFinder:
    """A session that finds certain words, as surely as that says."""

    precision, concurrency = "fp32", 1

    def __init__(self, tokenizer, strength):
        self.ids = {tokenizer.backend.token_to_id(word): value for word, value in strength.items()}

    def run(self, batch):
        values = np.zeros(batch.input_ids.shape, np.float32)
        for token, value in self.ids.items():
            values[(batch.input_ids == token) & (batch.token_type_ids == 1)] = value
        return logits(values, values)


def tried(monkeypatch, answer, decoy, strength):
    """The trial of documents of filler, with these paragraphs among it, each asked where the frog is."""
    monkeypatch.setattr(gate, "LONG_WORDS", 600)
    tokenizer = Tokenizer.from_files(DEMO)
    paragraphs = [FILLER * 10, answer, FILLER * 11, FILLER * 12, decoy, FILLER * 13]
    asked = [SquadQuestion(str(number), PAIR[0], text, ("pond",), False) for number, text in enumerate(paragraphs)]
    task_gate = question_answering.gate({})
    trial = RowSelectionTrial(question_answering, task_gate, 1, asked)

    def encode_selecting(labelled, first_rows):
        options = WindowOptions(max_seq_len=64, doc_stride=8, select_windows=first_rows)
        return question_answering.encode(tokenizer, task_gate.inputs(labelled), options)

    source = SimpleNamespace(
        task=question_answering,
        tokenizer=tokenizer,
        outputs=question_answering.OUTPUTS,
        encode_selecting=encode_selecting,
        on_step=lambda what, done, total: None,
        progress=lambda line: None,
    )
    plan = ThroughputPlan(streams=1, rows=8, tokens=8 * 64)
    variant = SimpleNamespace(session=WordFinder(tokenizer, strength), plan=plan)
    trial.measure(source, variant, GateLimits())
    return trial.as_dict(variant)


def test_a_better_reading_is_kept_with_its_figures(monkeypatch):
    """What is surely wrong stands far from the question's words."""
    found = tried(monkeypatch, "A frog sits in a pond there. ", "Rain on Mars. ", {"pond": 5.0, "mars": 9.0})
    measured = found["measured"]
    assert (measured["n"], measured["accuracy"], measured["full_accuracy"]) == (6, 100.0, 0.0)
    assert found["first_rows"] == 1 and measured["rows_read"] == 2 < measured["rows"]


def test_a_worse_one_is_refused(monkeypatch):
    with pytest.raises(GateRefused, match="scores 0.00 and reading all 100.00, of which 99.00% are asked for"):
        decoys = ("A frog, a frog on Mars. " + FILLER * 4) * 3
        tried(monkeypatch, "It sits in a pond there. ", decoys, {"pond": 9.0, "mars": 3.0})


def test_an_artifact_says_that_it_selects_and_does(tmp_path):
    artifact = compile_checkpoint(
        "demo", tmp_path / "out", backend="echo", precision="fp32", skip_gate=True, select_windows=2
    )
    assert artifact.manifest["row_selection"] == {"first_rows": 2, "measured": None} and artifact.first_rows == 2
    assert "select_windows=2 reads fewer windows; what that costs was not measured" in manifest_table(artifact)
    with Engine(artifact, threads=1) as engine:
        narrow = {"max_seq_len": 64, "doc_stride": 8}
        answers = {
            select: engine.answer([PAIR], WindowOptions(select_windows=select, **narrow)) for select in (None, 2, 0)
        }
    assert answers[None] == answers[2] != answers[0]
    with Runner(artifact, workers=1) as runner:
        assert runner.submit(*PAIR, **narrow).result(60) == answers[2][0][0]


@pytest.mark.parametrize("windows", [0, -1, 1.5, "2"])
def test_what_is_no_number_of_windows_is_refused_before_anything_is_read(tmp_path, windows):
    with pytest.raises(UsageError, match="select_windows must be a whole number of at least 1"):
        compile_checkpoint("no-such-checkpoint", tmp_path / "out", select_windows=windows)


def test_a_task_that_reads_all_rows_has_none_to_select():
    task = SimpleNamespace(NAME="text-classification", ROW_SELECTION=None)
    with pytest.raises(UsageError, match="text-classification reads all windows"):
        RowSelectionTrial(task, None, 1, [])


def labelled(count, words=100):
    """Questions about texts of so many words; each seventh has no answer."""
    questions = []
    for number in range(count):
        text = f"number {number} " + "word " * (words - 2)
        answers = () if number % 7 == 4 else (f"number {number}",)
        questions.append(
            SquadQuestion(str(number), f"Which {number}?", text, answers, not answers, (0,) * len(answers))
        )
    return questions


def test_at_most_so_many_questions_are_asked_of_all_the_text():
    asked = question_answering.gate({}).long_inputs(labelled(401))
    assert len(asked) <= gate.LONG_QUESTIONS
    assert all(len(question.context.split()) >= gate.LONG_WORDS for question in asked)
    assert int(asked[-1].id) > 350
    assert question_answering.gate({}).decode_options(asked).handle_impossible_answer


@pytest.mark.parametrize("count", [1, 20])
def test_too_little_text_is_refused_before_anything_is_exported(count):
    with pytest.raises(InputError, match="too little to put a document of 2500 words together"):
        RowSelectionTrial(question_answering, question_answering.gate({}), 1, labelled(count))
