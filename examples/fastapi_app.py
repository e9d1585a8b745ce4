"""Answers questions from your own FastAPI application, with a Runner inside it.

    pip install "neuronbert[openvino]" fastapi "uvicorn[standard]"
    NEURONBERT_ARTIFACT=my-artifact uvicorn fastapi_app:app --app-dir examples

    curl localhost:8000/answers -H 'content-type: application/json' \
        -d '{"question": "Who was it?", "context": "It was Jim Henson."}'

One process of uvicorn: the Runner is the pool. ``neuronbert serve`` does this and more without any code.
"""

import math
import os
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Dict

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from neuronbert import Runner
from neuronbert.errors import NeuronBertError, Overloaded


class Question(BaseModel):
    """What is asked."""

    question: str
    context: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The workers live as long as the application; at its end accepted requests are finished."""
    with Runner(os.environ["NEURONBERT_ARTIFACT"], drain_on_sigterm=False) as app.state.runner:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/answers")
async def answers(asked: Question, request: Request) -> Dict[str, Any]:
    """The best answer, within two seconds."""
    answer: Dict[str, Any] = await request.app.state.runner.answer(asked.question, asked.context, timeout_s=2.0)
    return answer


@app.exception_handler(NeuronBertError)
async def explain(_: Request, error: NeuronBertError) -> JSONResponse:
    """Each error has its status: 400 the request's fault, 429 too much at once, 504 too late, 503 and 500 ours."""
    if error.http_status in (500, 503):  # the message may name what is on this machine
        return JSONResponse({"error": type(error).__name__}, error.http_status)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.wait_s or 1.0)))
    return JSONResponse({"error": error.message, "try": error.hint}, error.http_status, headers)
