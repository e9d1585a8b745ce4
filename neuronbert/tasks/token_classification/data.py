"""Reads files of labelled text for gate.py and evaluation.py: JSON lines, or the columns of CoNLL's shared tasks.

What a file says is read first (``load_marked``); what it means to a checkpoint, whose labels it must use, is settled
once those are known (``with_labels``).
"""

import re
from pathlib import Path
from typing import Any, Container, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.errors import InputError
from neuronbert.hardware.untrusted import Refusal, read_given
from neuronbert.tasks.base import Document, PathLike
from neuronbert.tasks.labels import label_number
from neuronbert.tasks.lines import file_text, shown, surrogate_fault, text_fault
from neuronbert.tasks.records import MOST_BYTES, read_records
from neuronbert.tasks.samples import shipped_texts
from neuronbert.tasks.token_classification.entity_f1 import OUTSIDE, Span, entities_of, tag_parts
from neuronbert.tasks.token_classification.lines import LINES, joined_text, tokens_fault
from neuronbert.tasks.token_classification.windows import SplitText, TextInput, Words

_TAG_KEYS = ("ner_tags", "labels", "tags")
_FORM = (
    'a .jsonl file of {"tokens": [...], "ner_tags": [...]} or {"text": "...", "entities": [{"start": 0, "end": 3, '
    '"label": "PER"}]}, or a CoNLL file: a token and its tag a line, a blank line between sentences'
)
_DOCUMENT_START = "-DOCSTART-"  # a line of CoNLL-2003 that is no token

_COLUMN = re.compile(r"[^ \t\r]+")  # a token may hold any other white space

Tag = Union[str, int]  # the name of a label, or its number in the checkpoint


class MarkedEntity(NamedTuple):
    """An entity as a file names it, in characters."""

    label: str
    start: int
    end: int


class MarkedText(NamedTuple):
    """A text as a file has it: with a tag for each of its words, or with entities."""

    place: str  # in the file
    text: str
    words: Optional[Words]  # None where entities are given
    tags: Tuple[Tag, ...]
    entities: Tuple[MarkedEntity, ...]

    @property
    def input(self) -> TextInput:
        """The text as the task's input, with its words if it has some."""
        return split_text(self.text, self.words)


class LabelledText(NamedTuple):
    """A text with what a checkpoint should find in it."""

    text: str
    words: Optional[Words] = None  # those that have a tag each; None: the tokenizer's own
    tags: Tuple[str, ...] = ()
    entities: Optional[FrozenSet[Span]] = None  # over characters; None where nobody has labelled the text

    @property
    def input(self) -> TextInput:
        """The text as a task's input, with its words if it has some."""
        return split_text(self.text, self.words)


def split_text(text: str, words: Optional[Words]) -> TextInput:
    """The text as an input, with its words if they are known."""
    return text if words is None else SplitText(text, words)


def load_marked(path: PathLike) -> List[MarkedText]:
    """The texts of a labelled file; InputError says what is wrong with it, and in which line."""
    texts = list(_json_texts(path) if Path(path).suffix == ".jsonl" else _conll_texts(path))
    if not texts:
        raise InputError(f"{path} holds no labelled text", hint=_FORM)
    return texts


def with_labels(texts: Sequence[MarkedText], labels: Sequence[str], name: str) -> List[LabelledText]:
    """The texts of the file called ``name`` in terms of a checkpoint's ``labels``, in the order of their numbers.

    Tags may be of any scheme: B-PER fits a checkpoint that has I-PER only. InputError for a number or a type that the
    checkpoint does not have.
    """
    types = {tag_parts(label)[1] for label in labels if label != OUTSIDE}
    return [_labelled(text, labels, types, name) for text in texts]


def characters_of(spans: Sequence[Span], words: Sequence[Tuple[int, int]]) -> FrozenSet[Span]:
    """Entities over words as entities over characters."""
    return frozenset(Span(span.type, words[span.start][0], words[span.stop - 1][1]) for span in spans)


# ---------------------------------------------------------------------------- labels


def _labelled(marked: MarkedText, labels: Sequence[str], types: Container[str], name: str) -> LabelledText:
    try:
        if marked.words is None:
            named = [(_known(label, labels, types), start, end) for label, start, end in marked.entities]
            spans = [Span(tag_parts(tag)[1], start, end) for tag, start, end in named if tag != OUTSIDE]
            return LabelledText(marked.text, None, (), frozenset(spans))
        tags = tuple(_known(tag, labels, types) for tag in marked.tags)
    except InputError as error:
        raise error.at(f"{name}, {marked.place}") from None
    return LabelledText(marked.text, marked.words, tags, characters_of(entities_of(tags), marked.words))


def _known(tag: Tag, labels: Sequence[str], types: Container[str]) -> str:
    """The name of a tag, of whatever scheme; InputError for a type or a number that the checkpoint does not have."""
    if isinstance(tag, str) and (tag == OUTSIDE or tag_parts(tag)[1] in types):
        return tag
    return labels[label_number(tag, labels)]


# ---------------------------------------------------------------------------- JSON lines


def _json_texts(path: PathLike) -> Iterator[MarkedText]:
    for record in read_records(path, _FORM):
        place = f"line {record.line_number}"
        fault = _fault(record.fields)
        if fault is not None:
            raise InputError(f"{path}, {place}: {fault}", hint=_FORM)
        yield _marked(record.fields, place)


def _fault(record: Document) -> Optional[str]:
    if "tokens" in record:
        return _tokens_fault(record)
    if "text" in record:
        return text_fault("text", record["text"]) or _entities_fault(record)
    return "there is neither 'tokens' nor 'text'"


def _tokens_fault(record: Document) -> Optional[str]:
    fault = tokens_fault(record["tokens"])
    if fault:
        return fault
    key = _tag_key(record)
    if key is None:
        return f"there are tokens, but none of {', '.join(map(repr, _TAG_KEYS))}"
    tags = record[key]
    if not isinstance(tags, list) or len(tags) != len(record["tokens"]):
        return f"{key} is {shown(tags)}, not a list of {len(record['tokens'])} tags, one for each token"
    wrong = [tag for tag in tags if isinstance(tag, bool) or not isinstance(tag, (str, int)) or tag == ""]
    if wrong:
        return f"{key} holds {shown(wrong[0])}, neither a label nor its number"
    return next(filter(None, (surrogate_fault(key, tag) for tag in tags if isinstance(tag, str))), None)


def _tag_key(record: Document) -> Optional[str]:
    return next((key for key in _TAG_KEYS if key in record), None)


def _entities_fault(record: Document) -> Optional[str]:
    entities = record.get("entities")
    if not isinstance(entities, list):
        return f"entities is {shown(entities)}, not a list"
    for number, entity in enumerate(entities):
        fault = _entity_fault(entity, len(record["text"]))
        if fault:
            return f"entities[{number}]: {fault}"
    return None


def _entity_fault(entity: Any, characters: int) -> Optional[str]:
    if not isinstance(entity, dict):
        return f"an object is expected here, not {shown(entity)}"
    for key in ("start", "end", "label"):
        if key not in entity:
            return f"the key {key!r} is missing"
    start, end = entity["start"], entity["end"]
    for key in ("start", "end"):
        if isinstance(entity[key], bool) or not isinstance(entity[key], int):
            return f"{key} is {shown(entity[key])}, not a whole number"
    if not 0 <= start < end <= characters:
        return f"characters {start} to {end} are not within the text, which has {characters}"
    return text_fault("label", entity["label"])


def _marked(record: Document, place: str) -> MarkedText:
    if "tokens" in record:
        return _tagged(place, record["tokens"], record[_tag_key(record) or ""])
    entities = (MarkedEntity(item["label"], item["start"], item["end"]) for item in record["entities"])
    return MarkedText(place, record["text"], None, (), tuple(entities))


def _tagged(place: str, tokens: Sequence[str], tags: Sequence[Tag]) -> MarkedText:
    words = []
    begun = 0
    for token in tokens:
        words.append((begun, begun + len(token)))
        begun += len(token) + len(joined_text(["", ""]))
    return MarkedText(place, joined_text(tokens), tuple(words), tuple(tags), ())


# ---------------------------------------------------------------------------- columns


def _conll_texts(path: PathLike) -> Iterator[MarkedText]:
    name = str(path)
    if Path(path).suffix in (".json", ".csv"):
        raise InputError(f"{name} is a {Path(path).suffix} file, and labelled text is read from others", hint=_FORM)
    raw = read_given(Path(path), Refusal(InputError, f"check the path; {_FORM}"), MOST_BYTES)
    tokens: List[str] = []
    tags: List[str] = []
    begun = 0
    for number, line in enumerate([*file_text(raw, name, hint=_FORM).split("\n"), ""], start=1):
        columns = _COLUMN.findall(line)
        if columns and columns[0] != _DOCUMENT_START:
            if len(columns) < 2:
                raise InputError(f"{name}, line {number}: {shown(line.strip())} has no tag", hint=_FORM)
            begun = begun or number
            tokens.append(columns[0])
            tags.append(columns[-1])
        elif tokens:
            yield _tagged(_lines(begun, number - 1), tokens, tags)
            tokens, tags, begun = [], [], 0


def _lines(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}"


# ---------------------------------------------------------------------------- texts alone


def read_texts(path: PathLike) -> List[str]:
    """The texts of a JSONL or CoNLL file, whatever is said of them; InputError for what is neither."""
    if Path(path).suffix != ".jsonl":
        return [marked.text for marked in load_marked(path)]
    texts = []
    for record in read_records(path, LINES.hint):
        fault = LINES.fault(record.fields)
        if fault is not None:
            raise InputError(f"{path}, line {record.line_number}: {fault}", hint=LINES.hint)
        texts.append(LINES.input(record.fields))
    return texts


def shipped_paragraphs(path: Path) -> List[str]:
    """The paragraphs of one of the package's own two files, each once."""
    return list(dict.fromkeys(asked.paragraph for asked in shipped_texts(path)))
