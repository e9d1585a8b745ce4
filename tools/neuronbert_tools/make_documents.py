"""Makes a SQuAD file of longer or shorter documents of another: what is asked stays, how much is read does not.

    tools/make_documents long xquad-en.json long.json --questions 300
    neuronbert evaluate ARTIFACT long.json
    neuronbert evaluate ARTIFACT long.json --select-windows 1

    tools/make_documents short xquad-en.json short.json
    tools/compare_peers --data short.json

"long": each question is about its paragraph and those beside it, so one sees what reading only some windows saves and
costs. "short": about the sentence with its answer, and those beside it while they are few words; questions without an
answer, or whose sentence is longer, are left out. --questions takes so many, evenly spread.
"""

import json
from pathlib import Path
from typing import Sequence

from neuronbert.artifact.files import refuse_existing, replace_file
from neuronbert.errors import InputError, positive
from neuronbert.tasks.question_answering.long_documents import long_documents
from neuronbert.tasks.question_answering.squad import load_squad_data, squad_document
from neuronbert_tools.console import new_parser
from neuronbert_tools.short_documents import short_documents

KINDS = {"long": (long_documents, 5000), "short": (short_documents, 30)}  # how they are made, of how many words


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("kind", choices=tuple(KINDS))
    parser.add_argument("source", type=Path, help="a SQuAD file")
    parser.add_argument("output", type=Path, help="a new file")
    defaults = "; ".join(f"{kind}: {words}" for kind, (_, words) in KINDS.items())
    parser.add_argument("--words", type=int, help=f"long: at least, short: at most (default: {defaults})")
    parser.add_argument("--questions", dest="count", type=int, help="so many of them, at most (default: all)")
    options = parser.parse_args(arguments)
    refuse_existing(options.output)
    data = load_squad_data(options.source)
    make, default = KINDS[options.kind]
    questions = make(data.questions, positive("--words", options.words) or default)
    if not questions:
        raise InputError(f"{options.source} has no question for {options.kind} documents", hint="another --words")
    step = -(-len(questions) // (positive("--questions", options.count) or len(questions)))
    questions = questions[::step]
    document = squad_document(questions, data.version)
    replace_file(options.output, json.dumps(document, ensure_ascii=False) + "\n")
    words = [len(question.context.split()) for question in questions]
    print(f"{options.output}: {len(questions)} questions about documents of {min(words):,} to {max(words):,} words")
    return 0
