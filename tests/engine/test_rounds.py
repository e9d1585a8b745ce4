"""neuronbert.engine.rounds: which rows are read in which round, whatever a task selects and whatever fails."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from neuronbert import Engine
from neuronbert.engine.rounds import Rounds, as_read
from neuronbert.errors import BackendFailed
from neuronbert.tasks.question_answering.options import WindowOptions

FILLER = "the coat is green and old and nobody knows who made it for the puppet in all those years . "


class Doubling:
    """Selects one row, and as many again until ``options`` are read."""

    @staticmethod
    def next_rows(example, read, options):
        wanted = min(options, len(example.windows))
        return range(len(read), min(wanted, max(1, 2 * len(read))))

    @staticmethod
    def narrowed(example, rows):
        return SimpleNamespace(windows=[example.windows[number] for number in rows])


ALL = SimpleNamespace(ROW_SELECTION=None)
SOME = SimpleNamespace(ROW_SELECTION=Doubling)
COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def examples_of(counts):
    return [SimpleNamespace(windows=[f"{number}.{row}" for row in range(count)]) for number, count in enumerate(counts)]


@given(COUNTS)
def test_without_selection_there_is_one_round_of_all_rows(counts):
    examples = examples_of(counts)
    rounds = Rounds(ALL, examples, [None] * len(counts))
    assert rounds.rows == [row for example in examples for row in example.windows]
    rounds.give({place: {"row": row} for place, row in enumerate(rounds.rows)})
    assert rounds.rows == [] and rounds.settled_rows == rounds.total_rows == sum(counts)
    for number, example in enumerate(examples):
        assert rounds.read(number) == (example, [{"row": row} for row in example.windows])


@given(COUNTS, st.data())
def test_with_it_each_example_is_read_as_far_as_it_needs(counts, data):
    examples = examples_of(counts)
    wanted = [data.draw(st.integers(1, 9)) for _ in counts]
    failing = data.draw(st.sets(st.sampled_from([row for each in examples for row in each.windows]), max_size=3))
    rounds, settled, seen = Rounds(SOME, examples, wanted), [], []
    while rounds.rows:
        settled.append(rounds.settled_rows)
        seen += rounds.rows
        failed = {place: BackendFailed(row) for place, row in enumerate(rounds.rows) if row in failing}
        rounds.give({place: row for place, row in enumerate(rounds.rows) if place not in failed}, failed)
    assert len(seen) == len(set(seen))
    assert settled == sorted(settled) and rounds.settled_rows == rounds.total_rows
    for number, (example, count) in enumerate(zip(examples, wanted)):
        needed = example.windows[:count]
        fault = next((row for row in needed if row in failing), None)
        if fault is None:
            assert rounds.errors[number] is None
            narrowed, outputs = rounds.read(number)
            assert narrowed.windows == outputs == needed
        else:
            assert rounds.errors[number].message == fault


def test_what_is_told_grows_to_all_rows():
    rounds, told = Rounds(SOME, examples_of([9, 2, 4]), [9, 1, 2]), []

    def infer(rows, rows_done):
        for done in range(1, len(rows) + 1):
            rows_done(done)
        return list(rows)

    rounds.read_all(infer, told.append)
    assert told == sorted(told) and told[-1] == 15


def test_an_example_that_is_read_whole_stays_itself():
    (example,) = examples_of([2])
    assert as_read(SOME, example, {1: "b", 0: "a"}) == (example, ["a", "b"])


def test_an_engine_reads_the_windows_that_are_selected_and_no_other(echo_artifact, monkeypatch):
    context = FILLER * 30 + "The frog sits here . " + FILLER * 30
    rows = []
    with Engine(echo_artifact, threads=1) as engine:
        outputs = engine.outputs
        monkeypatch.setattr(engine, "outputs", lambda asked, told: rows.append(len(asked)) or outputs(asked, told))
        options = WindowOptions(max_seq_len=64, doc_stride=8, select_windows=1)
        pair = ("Where is the frog?", context)
        (example,) = engine.encode([pair], options)
        told = []
        (answered,) = engine.answer_encoded([example], rows_done=told.append)
        assert rows[0] == 2 and sum(rows) <= len(example.windows) == told[-1]
        asked = [example.windows[number] for number in sorted(example.selection.order[: sum(rows)])]
        narrowed, defaults = example._replace(windows=asked), engine.task.DECODE_OPTIONS()
        assert engine.task.decode(narrowed, outputs(asked), defaults) == answered
        assert engine.answer([pair], options) == [answered]
