"""Generates the edge cases that tools/make_golden records: the same seed gives the same cases."""

import random
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

# One of each kind of text that moves characters, tokens and words apart.
UNICODE_TEXTS = (
    "Beyoncé naïve façade",
    "cafe\u0301 re\u0301sume\u0301 with combining marks",
    "👩‍👩‍👧‍👦 a family of four 🏳️‍🌈",
    "flags 🇩🇪🇫🇷 and 👍🏽 skin tones",
    "北京是中国的首都",
    "東京タワーは一九五八年に完成した",
    "서울은 대한민국의 수도이다",
    "\u1109\u1165\u110b\u116e\u11af in Jamo",
    "Москва — столица России",
    "القاهرة عاصمة مصر",
    "שָׁלוֹם with points",
    "กรุงเทพมหานคร",
    "नई दिल्ली भारत की राजधानी है",
    "Straße und Größe, ẞ and ß",
    "İstanbul and ırmak: dotted and dotless",
    "ﬁnancial eﬃciency with ligatures",
    "ｆｕｌｌ　ｗｉｄｔｈ　ｔｅｘｔ",
    "𝔐𝔞𝔱𝔥 𝒶𝓁𝓅𝒽𝒶𝒷𝑒𝓉 𝟙𝟚𝟛",
    "½ of ² and ³, ™ and ©, № 5",
    "quotes “double” ‘single’ «guillemets»",
    "dashes – and — and ‑ and −",
    "zero\u200bwidth\u200cjoiners\u200dand\u2060more",
    "soft\u00adhyphen\u00adated",
    "non\u00a0breaking\u202fspaces\u3000here",
    "line\r\nbreaks\rof\nall\u2028kinds\u2029\u0085",
    "tabs\tand\x0bvertical\x0cfeeds",
    "control\x00\x01\x7fcharacters",
    "\ufeffbyte order mark",
    "replacement \ufffd and private \ue000 use",
    "right\u202eto\u202cleft overrides",
    "Z̸̡̢a̷͎̐l̴̠̅g̵͇̈ő̶͖ text",
    "a" * 120 + " is longer than a word may be",
    "x.y.z:1/2;3#4@5!6?7",
    "e\u0301\u0301\u0301 many marks",
    "\u0130\u0131\u017f\u1e9e case pairs",
    "tag\U000e0067\U000e007f characters",
)
BLANK_TEXTS = (
    " ",
    "\t",
    "\r\n",
    "\u200b",
    "\u200b\u200c\u200d",
    "\ufeff",
    "\u0000",
    "\u0301",
    "\u00ad\u00ad",
    "\u2060 \u2060",
)
SPECIAL_TOKENS = ("[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "[sep]", "[ CLS ]", "[CLS][SEP]")
ANSWERLESS = (
    "Who painted it?",
    "What is the melting point?",
    "How many moons are there?",
    "When was the bridge closed?",
)


Pair = Tuple[str, str]  # question, context
Keywords = Dict[str, Any]  # of a call of the pipeline
Call = Tuple[str, str, Keywords]  # question, context, keywords


class Case(NamedTuple):
    """One call of the pipeline: ``kind`` says what it is there to try."""

    kind: str
    question: str
    context: str
    keywords: Keywords


def edge_cases(pairs: Sequence[Pair], seed: int) -> List[Case]:
    """The cases of every kind, in order, over the questions and paragraphs of ``pairs``."""
    cases: List[Case] = []
    for kind, (count, generate) in KINDS.items():
        rng = random.Random(f"{seed} {kind}")
        for _ in range(count):
            question, context, keywords = generate(rng, pairs)
            cases.append(Case(kind, question, context, keywords))
    return cases + [Case("hostile", *case) for case in hostile(pairs)]


def long_document(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    keywords: Keywords = {"top_k": rng.choice((1, 1, 1, 3, 8))}
    if rng.random() < 0.6:
        keywords["max_seq_len"] = rng.choice((64, 96, 128, 256, 512))
        keywords["doc_stride"] = rng.choice((0, 1, 16, 24))
    question, context = document(rng, pairs, rng.randint(2, 6))
    return question, context, keywords


def document(rng: random.Random, pairs: Sequence[Pair], paragraphs: int) -> Pair:
    """A question, and its paragraph among others."""
    question, context = rng.choice(pairs)
    parts = [rng.choice(pairs)[1] for _ in range(paragraphs - 1)] + [context]
    rng.shuffle(parts)
    return question, rng.choice(("\n", "\n\n", " ")).join(parts)


def many_answers(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    return (*rng.choice(pairs), {"top_k": rng.choice((2, 3, 4, 5, 7, 10, 20, 50))})


def impossible(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    question, context = document(rng, pairs, rng.choice((1, 1, 2, 4)))
    if rng.random() < 0.6:
        question = rng.choice(ANSWERLESS)
    return question, context, {"handle_impossible_answer": True, "top_k": rng.choice((1, 1, 2, 5))}


def ties(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    """The same words again and again, in other cases and in other windows."""
    question, context = rng.choice(pairs)
    sentence = context.split(". ")[0][:120] + ". "
    copies = [rng.choice((sentence, sentence.upper(), sentence.lower())) for _ in range(rng.randint(2, 12))]
    keywords = {
        "top_k": rng.choice((1, 2, 5)),
        "max_seq_len": rng.choice((64, 128, 384)),
        "doc_stride": rng.choice((8, 20)),
    }
    return question, "".join(copies), keywords


def unicode_text(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    question, context = rng.choice(pairs)
    words = context[: rng.choice((80, 200, 600))].split(" ")
    for text in rng.sample(UNICODE_TEXTS, rng.randint(1, 5)):
        words.insert(rng.randint(0, len(words)), text)
    if rng.random() < 0.3:
        question = f"{question} {rng.choice(UNICODE_TEXTS)}"
    keywords = {"top_k": rng.choice((1, 1, 3, 6)), "align_to_words": rng.random() < 0.7}
    return question, rng.choice((" ", " ", "", "\u200b", "\r\n")).join(words), keywords


def unicode_soup(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    """Characters without any sense, from the pieces above."""
    alphabet = "".join(UNICODE_TEXTS) + " " * 40
    context = "".join(rng.choice(alphabet) for _ in range(rng.choice((3, 20, 100, 500))))
    return (
        rng.choice(pairs)[0],
        context,
        {"top_k": rng.choice((1, 3)), "max_seq_len": rng.choice((64, 384)), "doc_stride": 10},
    )


def tiny(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    question, context = rng.choice(pairs)
    context = " ".join(context.split(" ")[: rng.randint(1, 4)])
    keywords = {"top_k": rng.choice((1, 1, 2, 5, 20)), "handle_impossible_answer": rng.random() < 0.4}
    return question, context, keywords


def special_tokens(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    question, context = rng.choice(pairs)
    words = context[:300].split(" ")
    words.insert(rng.randint(0, len(words)), rng.choice(SPECIAL_TOKENS))
    if rng.random() < 0.6:
        asked = question.split(" ")
        asked.insert(rng.randint(0, len(asked)), rng.choice(SPECIAL_TOKENS))
        question = " ".join(asked)
    return (
        question,
        " ".join(words),
        {"top_k": rng.choice((1, 1, 3, 10)), "handle_impossible_answer": rng.random() < 0.3},
    )


def unaligned(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    question, context = document(rng, pairs, rng.choice((1, 1, 3)))
    return question, context, {"align_to_words": False, "top_k": rng.choice((1, 2, 5, 20))}


def lengths(rng: random.Random, pairs: Sequence[Pair]) -> Call:
    keywords: Keywords = {
        "max_seq_len": rng.choice((40, 48, 64, 100, 200, 384, 512)),
        "max_answer_len": rng.choice((1, 2, 3, 15, 30, 100, 1000)),
        "top_k": rng.choice((1, 1, 2, 4)),
    }
    if rng.random() < 0.7:
        keywords["doc_stride"] = rng.choice((0, 1, 2, 5, 9))
    if rng.random() < 0.3:
        keywords["padding"] = rng.choice(("longest", "max_length", True))
    return (*document(rng, pairs, rng.choice((1, 2))), keywords)


def hostile(pairs: Sequence[Pair]) -> Iterator[Call]:
    """What the pipeline crashed on, or nearly so."""
    question, context = pairs[0]
    for blank in BLANK_TEXTS:
        yield question, blank, {}
        yield blank, context, {}
        yield blank, blank, {"handle_impossible_answer": True}
    for top_k in (2, 3, 13):  # argpartition was asked for the last of 4 * 4 or 6 * 6 scores
        yield "?", "\u200b", {"top_k": top_k}
        yield "Who is?", "\u200b", {"top_k": top_k}
        yield "Who is he?", "a b", {"top_k": top_k, "align_to_words": False}
    yield "? ?", "abc", {"top_k": 25, "align_to_words": False}
    for doc_stride in (40, 48, 63, 64):  # an overlap of more than the room that the question leaves
        yield question, context[:200], {"max_seq_len": 64, "doc_stride": doc_stride}
    yield question, context, {"max_seq_len": 64, "doc_stride": 65}
    yield " ".join([question] * 40), context[:120], {}
    yield " ".join([question] * 40), context, {"max_seq_len": 128}
    yield question, context, {"max_seq_len": 8, "doc_stride": 2}
    yield question, " ".join(paragraph for _, paragraph in pairs[:40:5]), {"max_seq_len": 600}
    yield question, context, {"max_seq_len": 600}
    yield question, context + " \ud83d half a pair", {}
    yield question + " \udc00", context, {}
    yield question, "", {}
    yield "", context, {}


KINDS: Dict[str, Tuple[int, Callable[[random.Random, Sequence[Pair]], Call]]] = {
    "long document": (60, long_document),
    "many answers": (50, many_answers),
    "impossible": (50, impossible),
    "ties": (40, ties),
    "unicode": (80, unicode_text),
    "unicode soup": (40, unicode_soup),
    "tiny": (50, tiny),
    "special tokens": (50, special_tokens),
    "unaligned": (40, unaligned),
    "lengths": (60, lengths),
}
