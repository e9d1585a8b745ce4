"""Makes a SQuAD file of long documents: the same questions, each about its paragraph and those beside it.

    tools/make_long_documents xquad-en.json long.json --questions 300
    neuronbert evaluate ARTIFACT long.json
    neuronbert evaluate ARTIFACT long.json --select-windows 1

So one sees what reading only some windows of a long context saves and costs. --questions takes so many, evenly spread.
"""

import json
from pathlib import Path
from typing import Sequence

from neuronbert.artifact.files import refuse_existing, replace_file
from neuronbert.errors import positive
from neuronbert.tasks.question_answering.long_documents import long_documents
from neuronbert.tasks.question_answering.squad import load_squad_data, squad_document
from neuronbert_tools.console import new_parser


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("source", type=Path, help="a SQuAD file")
    parser.add_argument("output", type=Path, help="a new file")
    parser.add_argument("--words", type=int, default=5000, help="of each document, at least (default: %(default)s)")
    parser.add_argument("--questions", dest="count", type=int, help="so many of them, at most (default: all)")
    options = parser.parse_args(arguments)
    refuse_existing(options.output)
    data = load_squad_data(options.source)
    questions = long_documents(data.questions, options.words)
    step = -(-len(questions) // (positive("--questions", options.count) or len(questions)))
    questions = questions[::step]
    document = squad_document(questions, data.version)
    replace_file(options.output, json.dumps(document, ensure_ascii=False) + "\n")
    words = [len(question.context.split()) for question in questions]
    print(f"{options.output}: {len(questions)} questions about documents of {min(words):,} to {max(words):,} words")
    return 0
