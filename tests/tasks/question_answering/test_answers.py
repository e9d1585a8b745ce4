"""neuronbert.tasks.question_answering.answers against a slow and plain statement of the same rules."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO

from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks.question_answering.answers import _characters, is_slow_to_rank
from neuronbert.tasks.question_answering.answers import rank_answers as rank_outputs
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.spans import Spans
from neuronbert.tasks.question_answering.windows import Window, encode_examples

TOKENIZER = Tokenizer.from_files(DEMO)
PAIRS = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))
CONTEXT = (
    "Jim Henson was a puppeteer. JIM HENSON, born in Greenville (Mississippi) in 1936, was\r\nthe creator of the "
    "Muppets; jim henson's café served 北京 duck 🙂 to un\u00adbelievably many cafe\u0301 guests "
    "of antidisestablishment."
)


def logits_of(example_, seed, scale=4.0):
    rng = np.random.default_rng(seed)
    return tuple(
        [rng.normal(0, scale, len(window.input_ids)).astype(np.float32) for window in example_.windows] for _ in "se"
    )


def outputs_of(starts, ends):
    return [{"start_logits": start, "end_logits": end} for start, end in zip(starts, ends)]


def rank_answers(example_, starts, ends, *options):
    return rank_outputs(example_, outputs_of(starts, ends), *options)


def plain_ranking(question, context, starts, ends, options, window_options):
    """The old rules, one span at a time, on the windows of `tokenizers`' own pair encoding; but only in the context."""
    PAIRS.enable_truncation(window_options.max_seq_len, stride=window_options.doc_stride, strategy="only_second")
    encoding = PAIRS.encode(question, context)
    answers, null_score = [], math.inf
    for window, start, end in zip([encoding, *encoding.overflowing], starts, ends):
        opened = [
            index == 0 or sequence == 1  # the old one allowed a [CLS] in the question too
            for index, sequence in enumerate(window.sequence_ids)
        ]
        start, end = (plain_softmax(logits, opened) for logits in (start, end))
        null_score = min(null_score, start[0] * end[0])
        spans = [
            (start[i] * end[j], i, j)
            for i in range(1, len(start))
            for j in range(i, min(i + options.max_answer_len, len(start)))
            if opened[i] and opened[j]
        ]
        spans.sort(key=lambda span: -span[0])
        kept = 2 * options.top_k + 10 if options.align_to_words else options.top_k
        for score, i, j in spans[:kept]:
            first, last = plain_characters(window, i, j, options.align_to_words)
            text = context[first:last]
            same = [answer for answer in answers if answer["answer"].lower() == text.lower()]
            if same:
                same[0]["score"] += score
            else:
                answers.append({"score": score, "start": first, "end": last, "answer": text})
    if options.handle_impossible_answer:
        answers.append({"score": null_score, "start": 0, "end": 0, "answer": ""})
    answers.sort(key=lambda answer: -answer["score"])
    return answers[: options.top_k]


def plain_softmax(logits, opened):
    exponentials = [math.exp(float(x)) if is_open else 0.0 for x, is_open in zip(logits, opened)]
    total = math.fsum(exponentials)
    return [x / total for x in exponentials]


def plain_characters(window, i, j, align_to_words):
    if align_to_words:
        first, last = (window.word_to_chars(window.token_to_word(token), 1) for token in (i, j))
        if first is not None and last is not None:
            return first[0], last[1]
    return window.offsets[i][0], window.offsets[j][1]


def assert_same(found, expected):
    places = [(answer["start"], answer["end"], answer["answer"]) for answer in found]
    assert places == [(answer["start"], answer["end"], answer["answer"]) for answer in expected]
    assert [answer["score"] for answer in found] == pytest.approx([answer["score"] for answer in expected], rel=1e-5)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    options=st.builds(
        AnswerOptions,
        top_k=st.integers(1, 30),
        max_answer_len=st.integers(1, 200),
        handle_impossible_answer=st.booleans(),
        align_to_words=st.booleans(),
    ),
    window_options=st.builds(WindowOptions, st.integers(30, 120), st.integers(0, 12)),
    question=st.sampled_from(["Who was he?", "Who [CLS] is [SEP] Jim [CLS]?", "[CLS]"]),
    context=st.sampled_from([CONTEXT, "x", "a b", CONTEXT[:60], CONTEXT * 3, "Jim [CLS] Henson [SEP] [CLS] was"]),
)
def test_the_ranking_is_that_of_the_old_pipeline(seed, options, window_options, question, context):
    example_ = encode_examples(TOKENIZER, [(question, context)], window_options)[0]
    starts, ends = logits_of(example_, seed)
    expected = plain_ranking(question, context, starts, ends, options, window_options)
    assert_same(rank_answers(example_, starts, ends, options), expected)


SPECIALS = [
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "[UNK]",
    "[cls]",
    "Who",
    "Jim",
    "puppet",
    "北京",
    "cafe\u0301",
    "\u200b",
]


@given(
    question=st.lists(st.sampled_from(SPECIALS), min_size=1, max_size=6).map(" ".join),
    context=st.lists(st.sampled_from(SPECIALS), min_size=1, max_size=30).map(" ".join),
    options=st.builds(
        AnswerOptions,
        top_k=st.integers(1, 30),
        align_to_words=st.booleans(),
        ranking=st.sampled_from(["window", "document"]),
        handle_impossible_answer=st.booleans(),
    ),
    seed=st.integers(0, 99),
)
@example("[CLS] [CLS] [CLS]", "Jim", AnswerOptions(top_k=30), 0)
def test_an_answer_lies_in_the_context_whatever_special_tokens_there_are(question, context, options, seed):
    example_ = encode_examples(TOKENIZER, [(question, context)], WindowOptions(24, 4))[0]
    starts, ends = logits_of(example_, seed)
    for logits in (*starts, *ends):
        logits[: example_.windows[0].context_start] += 20  # the model is sure that the answer is in the question
    for answer in rank_answers(example_, starts, ends, options):
        assert 0 <= answer["start"] <= answer["end"] <= len(context)
        assert answer["answer"] == context[answer["start"] : answer["end"]]


def test_padding_behind_a_window_is_ignored():
    example_ = encode_examples(TOKENIZER, [("Who?", CONTEXT * 2)], WindowOptions(48, 8))[0]
    starts, ends = logits_of(example_, 1)
    padded = [[np.append(one, np.full(9, 50.0, dtype=np.float32)) for one in each] for each in (starts, ends)]
    options = AnswerOptions(top_k=5, handle_impossible_answer=True)
    assert rank_answers(example_, *padded, options) == rank_answers(example_, starts, ends, options)


def test_words_cut_by_a_window_give_the_part_inside():
    context = "the antidisestablishmentarianism of unbelievability"
    example_ = encode_examples(TOKENIZER, [("What?", context)], WindowOptions(8, 1, None))[0]
    assert len(example_.windows) > 3
    window = example_.windows[1]
    first = example_.encoded_context.encoding.token_to_chars(window.first_token)
    last = example_.encoded_context.encoding.token_to_chars(window.first_token + window.token_count - 1)
    assert first[0] > context.index("anti") and last[1] < context.index(" of")
    quiet = [np.full(len(one.input_ids), -50.0, dtype=np.float32) for one in example_.windows]
    sure = [one.copy() for one in quiet]
    for logits in quiet:
        logits[0] = 50.0
    sure[0][0] = 50.0
    for index in range(2, len(sure)):
        sure[index][0] = 50.0
    sure[1][window.context_start] = 50.0
    answer = rank_answers(example_, sure, sure)[0]
    assert (answer["start"], answer["end"]) == (first[0], last[1])
    assert answer["answer"] == context[first[0] : last[1]]


@pytest.mark.parametrize("context", ["\u200b", " ", "\x00"])
@pytest.mark.parametrize("ranking", ["window", "document"])
def test_a_context_without_tokens_gives_the_empty_answer(context, ranking):
    example_ = encode_examples(TOKENIZER, [("Who?", context)])[0]
    starts, ends = logits_of(example_, 0)
    empty = {"start": 0, "end": 0, "answer": ""}
    for top_k in (1, 3):
        options = AnswerOptions(top_k=top_k, ranking=ranking)
        assert rank_answers(example_, starts, ends, options) == [{"score": 0.0, **empty}]
        options = AnswerOptions(top_k=top_k, ranking=ranking, handle_impossible_answer=True)
        assert rank_answers(example_, starts, ends, options) == [{"score": 1.0, **empty}]
        options = AnswerOptions(top_k=top_k, ranking=ranking, null_threshold=5.0)
        assert rank_answers(example_, starts, ends, options) == [{"score": 1.0, **empty}]


def test_only_real_spans_are_listed():
    example_ = encode_examples(TOKENIZER, [("Who?", "Jim Henson")])[0]
    answers = rank_answers(example_, *logits_of(example_, 0), AnswerOptions(top_k=50))
    assert sorted(answer["answer"] for answer in answers) == ["Henson", "Jim", "Jim Henson"]
    assert all(answer["score"] > 0 for answer in answers)


def plain_document(context, example_, starts, ends, options):
    """Every span of every window, one softmax with the empty answer, summed by text."""
    weights, null = {}, min(float(start[0]) + float(end[0]) for start, end in zip(starts, ends))
    total = math.exp(null)
    encoding = example_.encoded_context.encoding
    for window, start, end in zip(example_.windows, starts, ends):
        shift = window.first_token - window.context_start
        stop = window.context_start + window.token_count
        for i in range(window.context_start, stop):
            for j in range(i, min(i + options.max_answer_len, stop)):
                weight = math.exp(float(start[i]) + float(end[j]))
                total += weight
                text = context[encoding.token_to_chars(i + shift)[0] : encoding.token_to_chars(j + shift)[1]]
                weights[text.lower()] = weights.get(text.lower(), 0.0) + weight
    return {text: weight / total for text, weight in weights.items()}, math.exp(null) / total


@pytest.mark.parametrize("seed", range(4))
def test_document_ranking_is_one_softmax_over_all_spans(seed):
    context = CONTEXT * 2
    example_ = encode_examples(TOKENIZER, [("Who?", context)], WindowOptions(64, 20))[0]
    starts, ends = logits_of(example_, seed)
    options = AnswerOptions(5000, 4, align_to_words=False, ranking="document", handle_impossible_answer=True)
    expected, expected_null = plain_document(context, example_, starts, ends, options)
    answers = rank_answers(example_, starts, ends, options)
    scores = [answer["score"] for answer in answers]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0, abs=1e-4)
    for answer in answers:
        wanted = expected[answer["answer"].lower()] if answer["answer"] else expected_null
        assert answer["score"] == pytest.approx(wanted, rel=1e-3)
        assert context[answer["start"] : answer["end"]] == answer["answer"]


def test_document_ranking_prefers_the_sure_window():
    """Every window is sure of itself; only the document ranking sees that one has reason to be."""
    context = "Jim was here. " * 12 + "Henson came later. " + "Jim was here. " * 12
    example_ = encode_examples(TOKENIZER, [("Who?", context)], WindowOptions(40, 4))[0]
    starts, ends = ([np.full(len(one.input_ids), -9.0, dtype=np.float32) for one in example_.windows] for _ in "se")
    for window, start, end in zip(example_.windows, starts, ends):
        tokens = range(window.first_token, window.first_token + window.token_count)
        words = [context[slice(*example_.encoded_context.encoding.token_to_chars(token))] for token in tokens]
        inside = "Henson" in words
        # A window without the answer is as sure of some other word, at a much lower level.
        position = window.context_start + words.index("Henson" if inside else "Jim")
        start[position] = end[position] = 3.0 if inside else -4.0
    window_ranked = rank_answers(example_, starts, ends)[0]
    document_ranked = rank_answers(example_, starts, ends, AnswerOptions(ranking="document"))[0]
    assert window_ranked["answer"] == "Jim"
    assert document_ranked["answer"] == "Henson" and document_ranked["score"] > 0.99


def test_document_scores_do_not_depend_on_how_many_answers_are_wanted():
    example_ = encode_examples(TOKENIZER, [("Who?", CONTEXT)])[0]
    starts, ends = logits_of(example_, 3)
    few, many = (
        rank_answers(example_, starts, ends, AnswerOptions(top_k, ranking="document", align_to_words=False))
        for top_k in (1, 10)
    )
    assert few[0] == many[0]


@pytest.mark.parametrize("ranking", ["window", "document"])
def test_the_null_threshold_is_a_difference_of_logits(ranking):
    context = CONTEXT * 2
    example_ = encode_examples(TOKENIZER, [("Who?", context)], WindowOptions(64, 20))[0]
    starts, ends = logits_of(example_, 5)
    best = max(
        float(start[i]) + float(end[j])
        for window, start, end in zip(example_.windows, starts, ends)
        for i in range(window.context_start, window.context_start + window.token_count)
        for j in range(i, min(i + 15, window.context_start + window.token_count))
    )
    difference = min(float(start[0]) + float(end[0]) for start, end in zip(starts, ends)) - best

    def answers(threshold, **more):
        options = AnswerOptions(3, null_threshold=threshold, ranking=ranking, **more)
        return rank_answers(example_, starts, ends, options)

    plain = rank_answers(example_, starts, ends, AnswerOptions(3, ranking=ranking))
    above, below = answers(difference - 1e-4), answers(difference + 1e-4)
    assert above[0]["answer"] == "" and above[1:] == plain[:2]
    assert below == plain
    assert answers(difference + 1e-4, handle_impossible_answer=True) == plain
    assert answers(0.0, details=True)[0]["null_difference"] == pytest.approx(difference)


def test_details_name_the_window_that_won():
    context = "Jim was here. " * 40
    example_ = encode_examples(TOKENIZER, [("Who?", context)], WindowOptions(40, 4))[0]
    starts, ends = ([np.full(len(one.input_ids), -9.0, dtype=np.float32) for one in example_.windows] for _ in "se")
    for start, end in zip(starts, ends):
        start[0] = end[0] = 9.0
    position = example_.windows[2].context_start + 3
    starts[2][position] = ends[2][position] = 30.0
    answer = rank_answers(example_, starts, ends, AnswerOptions(details=True))[0]
    assert answer["window"] == 2
    assert answer["null_difference"] == 18.0 - 60.0
    assert set(answer) == {"score", "start", "end", "answer", "window", "null_difference"}
    nothing = encode_examples(TOKENIZER, [("Who?", "\u200b")])[0]
    answer = rank_answers(nothing, *logits_of(nothing, 0), AnswerOptions(details=True))[0]
    assert answer["window"] is None and answer["null_difference"] == math.inf


def test_huge_logits_do_not_overflow():
    example_ = encode_examples(TOKENIZER, [("Who?", "Jim Henson was a puppet maker")])[0]
    for level in (-9000.0, 9000.0, 3e30):
        starts, ends = logits_of(example_, 2)
        starts[0] += np.float32(level)
        for ranking in ("window", "document"):
            for answer in rank_answers(example_, starts, ends, AnswerOptions(3, ranking=ranking)):
                assert 0.0 <= answer["score"] <= 1.0


@pytest.mark.parametrize(
    "keywords, text",
    [
        ({"top_k": 0}, "top_k parameter should be >= 1 (got 0)"),
        ({"max_answer_len": 0}, "max_answer_len parameter should be >= 1 (got 0"),
        ({"top_k": "3"}, "top_k parameter should be >= 1 (got '3')"),
        ({"null_threshold": "low"}, "null_threshold is a difference of logits, a number (got 'low')"),
        ({"ranking": "best"}, "there is no ranking 'best'\n  try: one of window, document"),
    ],
)
def test_options_that_make_no_sense_are_refused(keywords, text):
    with pytest.raises(UsageError) as caught:
        AnswerOptions(**keywords)
    assert str(caught.value) == text
    assert isinstance(caught.value, ValueError)


def test_logits_for_another_number_of_windows_are_refused():
    example_ = encode_examples(TOKENIZER, [("Who?", CONTEXT * 9)], WindowOptions(64, 20))[0]
    starts, ends = logits_of(example_, 0)
    with pytest.raises(ValueError, match=f"{len(starts)} windows need as many outputs, got 1"):
        rank_answers(example_, starts[:1], ends)


@given(
    context=st.lists(st.sampled_from([*SPECIALS, "Henson's", "unbelievably", "\u00ad", "a\u0301b", "🙂"]), min_size=1),
    space=st.sampled_from(["", " "]),
    length=st.integers(16, 40),
)
def test_a_word_is_where_the_encoding_has_it(context, space, length):
    example_ = encode_examples(TOKENIZER, [("Who?", space.join(context))], WindowOptions(length, 4))[0]
    encoding = example_.encoded_context.encoding
    for window in example_.windows:
        tokens = np.arange(window.first_token, window.first_token + window.token_count)
        spans = Spans(tokens, tokens, [0.0] * len(tokens), 0.0, 0.0, 0.0, 0.0, 0.0)
        starts, ends = _characters(example_.encoded_context, window, spans, align_to_words=True)
        for token, *found in zip(tokens.tolist(), starts, ends):
            word = encoding.word_to_tokens(encoding.token_to_word(token))
            first = max(word[0], window.first_token)
            last = min(word[1], window.first_token + window.token_count) - 1
            expected = encoding.token_to_chars(first)[0], encoding.token_to_chars(last)[1]
            assert tuple(found) == expected


def test_a_span_with_an_end_that_belongs_to_no_word_stays_as_it_is():
    """Tokens 0 and 1 are a word, 2 is none, 3 to 5 are a word of which the window shows 3 and 4."""
    encoding = SimpleNamespace(word_ids=[0, 0, None, 1, 1, 1], offsets=[(token, token + 1) for token in range(6)])
    context = Encoded(encoding, np.zeros(6, np.int64))
    window = Window(np.zeros(7, np.int64), np.zeros(7, np.int64), 1, 0, 5)
    firsts, lasts = np.array([0, 1, 1, 2, 4, 3]), np.array([0, 4, 2, 4, 4, 3])
    spans = Spans(firsts, lasts, [0.0] * 6, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert _characters(context, window, spans, align_to_words=False) == (firsts.tolist(), (lasts + 1).tolist())
    assert _characters(context, window, spans, align_to_words=True) == ([0, 0, 1, 2, 3, 3], [2, 5, 3, 5, 5, 5])


@pytest.mark.parametrize(
    ("words", "options", "is_slow"),
    [
        (300, AnswerOptions(), False),
        (300, AnswerOptions(top_k=5000), False),
        (300, AnswerOptions(top_k=50_000, max_answer_len=384), True),
        (3000, AnswerOptions(), False),
        (3000, AnswerOptions(top_k=5000), True),
        (20_000, AnswerOptions(), False),  # workers find the spans of each window
        (60_000, AnswerOptions(), True),
    ],
)
def test_what_is_slow_to_rank(words, options, is_slow):
    example_ = encode_examples(TOKENIZER, [("Who?", "a " * words)])[0]
    assert is_slow_to_rank(example_, options) == is_slow
