"""tools/measure_contexts: who is asked what, and what is made of the times."""

from typing import Any, List

import pytest

from neuronbert.errors import UsageError
from neuronbert_tools.measure_contexts import WITH, WITHOUT, asked, main, make_report, table
from neuronbert_tools.paths import XQUAD


def test_documents_are_asked_alike_one_after_the_other() -> None:
    pairs = asked(XQUAD, 3, 10, None, shuffled=False)
    contexts = list(dict.fromkeys(context for _, context in pairs))
    assert [sum(context == other for _, other in pairs) for context in contexts] == [4, 3, 3]
    assert [context for _, context in pairs] == [contexts[0]] * 4 + [contexts[1]] * 3 + [contexts[2]] * 3
    shuffled = asked(XQUAD, 3, 10, None, shuffled=True)
    assert sorted(shuffled) == sorted(pairs) and shuffled != pairs


def test_documents_of_many_words_are_put_together() -> None:
    pairs = asked(XQUAD, 2, 4, 600, shuffled=False)
    assert len({context for _, context in pairs}) == 2
    assert all(len(context.split()) >= 600 for _, context in pairs)
    with pytest.raises(UsageError, match="documents"):
        asked(XQUAD, 2, 4, 10**9, shuffled=False)


def test_the_whole_gains_less_than_encoding_does() -> None:
    report: Any = make_report({WITH: [1.0, 2.0, 9.0], WITHOUT: [4.0, 6.0, 8.0]}, 2.0, [("who?", "it")] * 3)
    assert (report["encoding_times"], report["questions_times"], report["documents"]) == (3.0, 2.0, 1)
    lines = table(report).splitlines()
    assert lines[1].endswith("2.000 (1.000 to 9.000)") and lines[-1].endswith("the whole 2.000 times")


@pytest.mark.parametrize("words", [["--documents", "0"], ["--rounds", "x"], []])
def test_what_is_no_command_ends_with_2(words: List[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
