"""What a user of the transformers pipeline runs for one answer: first_answer.py MODEL QUESTION CONTEXT."""

import sys

from transformers import pipeline

model, question, context = sys.argv[1:]
print(pipeline("question-answering", model=model)(question=question, context=context)["answer"], flush=True)
