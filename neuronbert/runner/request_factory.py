"""Inputs to requests, in the caller's thread: options checked, text tokenised, and what is made of the outputs."""

import copy
import functools
import itertools
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Type, Union

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs, stacked
from neuronbert.checkpoint.tokenizer import RowLimit, Tokenizer
from neuronbert.engine.encoded import encoded_batch, refuse_foreign_tokens
from neuronbert.engine.rounds import as_read, next_rows
from neuronbert.errors import InputError, NeuronBertError, TooManyRows, shown_value
from neuronbert.runner.blocks import Block
from neuronbert.runner.placement import Placement
from neuronbert.runner.requests import Finish, MoreRows, Request, Row, Told, Whole, now_s
from neuronbert.tasks import load_task
from neuronbert.tasks.base import DecodeOptions, EncodeOptions, Example, Input, option_kinds, options_of
from neuronbert.tasks.encoding import encode_each, encode_together

Options = Tuple[EncodeOptions, DecodeOptions]

CHUNK = 32  # inputs tokenised together: what they become is in memory before it can be refused as too much
MORE_WINDOWS = "Runner(..., max_windows_per_request=N, max_queue=N)"


class RequestFactory:
    """Makes the requests of one artifact; calls may come from several threads."""

    def __init__(self, artifact: Artifact, placement: Placement, max_windows_per_request: int):
        self.task = load_task(artifact.task)
        self.tokenizer = _tokenizer(artifact, placement)
        # Of requests only: a job cuts its documents itself, and submits its rows batch by batch.
        self._requests_tokenizer = copy.copy(self.tokenizer)
        self._requests_tokenizer.row_limit = RowLimit(max_windows_per_request, "the runner", MORE_WINDOWS)
        self._max_windows = max_windows_per_request
        self._ids = itertools.count(1)

    def options(self, keywords: Mapping[str, Any]) -> Options:
        """The task's options; UsageError for a keyword that is none of them."""
        kinds = option_kinds(self.task)
        # 7 and 7.0 and True are equal, and only one of them is a number of tokens: the types are part of the key.
        key = tuple((name, type(value), value) for name, value in sorted(keywords.items()))
        try:
            return _options_of(kinds, key)
        except TypeError:  # a value that cannot be hashed
            return options_of(kinds, keywords)

    def of_call(
        self,
        submitted: float,
        inputs: Sequence[Input],
        keywords: Mapping[str, Any],
        breakdown: bool,
        as_documents: bool = False,
    ) -> List[Request]:
        """The requests of inputs that are asked as one, with the task's options as keywords.

        ``as_documents``: their results are those of a file's lines.

        InputError for the first that is wrong, with its place if there are several, and for more windows than the
        runner takes at once.
        """
        encode_options, decode_options = self.options(keywords)
        requests: List[Request] = []
        windows = 0
        for first in range(0, len(inputs), CHUNK):
            chunk = inputs[first : first + CHUNK]
            for example in encode_together(self.task, self._requests_tokenizer, chunk, encode_options, first):
                windows += len(example.windows)
                if windows > self._max_windows:
                    raise self._too_many(windows, len(inputs))
                requests.append(self._of_example(example, decode_options, submitted, breakdown, as_documents))
        return requests

    def of_inputs(self, inputs: Sequence[Input], options: Options) -> List[Union[Request, NeuronBertError]]:
        """The request of each input, or what is wrong with it."""
        submitted = now_s()
        encode_options, decode_options = options
        return [
            outcome
            if isinstance(outcome, InputError)
            else self._too_many(len(outcome.windows))
            if len(outcome.windows) > self._max_windows
            else self._of_example(outcome, decode_options, submitted, False)
            for outcome in encode_each(self.task, self._requests_tokenizer, inputs, encode_options)
        ]

    def of_tokens(
        self,
        submitted: float,
        input_ids: Any,
        attention_mask: Any,
        token_type_ids: Any,
        full_batch: Optional[int],
        breakdown: bool,
    ) -> Request:
        """The request of rows that the caller tokenised; ``full_batch`` of them stay one batch as they are."""
        batch = self._checked(input_ids, attention_mask, token_type_ids)
        if len(batch.input_ids) == full_batch:
            return self._new(submitted, (), self._output, whole=batch, breakdown=breakdown)
        if len(batch.input_ids) > self._max_windows:
            raise self._too_many(len(batch.input_ids))
        rows = [Row(ids, types, mask) for ids, mask, types in zip(*batch)]
        return self._new(submitted, rows, self._stacked_output, breakdown=breakdown)

    def of_batch(self, batch: Batch) -> Request:
        """The request of rows that stay together, whose result is their Outputs."""
        submitted = now_s()
        if not isinstance(batch, Batch):
            raise InputError(f"rows that stay together are a Batch, not {shown_value(batch)}")
        return self._new(submitted, (), lambda read: read[0], whole=self._checked(*batch))

    def of_block(self, block: Block, told: Told) -> Request:
        """The request of a block, whose result is its Part."""
        request = self._new(now_s(), (), lambda read: read[0], whole=block)
        request.told = told
        return request

    def _too_many(self, windows: int, inputs: int = 1) -> TooManyRows:
        """What is wrong with so many windows; of several inputs there may be more than were counted."""
        if inputs == 1:
            return TooManyRows(
                f"this request needs {windows} windows, and the runner takes {self._max_windows}",
                hint=f"a shorter context, a smaller doc_stride, or {MORE_WINDOWS}",
            )
        return TooManyRows(
            f"these {inputs} inputs need more windows together than the runner takes: {self._max_windows}",
            hint=f"fewer inputs at once, shorter ones, or {MORE_WINDOWS}",
        )

    def _checked(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Batch:
        batch = encoded_batch(input_ids, attention_mask, token_type_ids)
        refuse_foreign_tokens(batch, self.tokenizer.config, self.tokenizer.max_length)
        return batch

    def _of_example(
        self,
        example: Example,
        options: DecodeOptions,
        submitted: float,
        breakdown: bool,
        as_document: bool = False,
    ) -> Request:
        task = self.task

        def finish(read: Mapping[int, Outputs]) -> Any:
            more = next_rows(task, example, read, options)
            if more:
                return MoreRows(more)
            result = task.decode(*as_read(task, example, read), options)
            return task.json_result(result, options) if as_document else task.call_result(result)

        reduction = task.REDUCTION
        wanted = itertools.repeat(None) if reduction is None else reduction.wanted_of(example, options)
        rows = [Row(row.input_ids, row.token_type_ids, wanted=own) for row, own in zip(example.windows, wanted)]
        request = self._new(submitted, rows, finish, next_rows(task, example, {}, options), breakdown=breakdown)
        request.is_slow_to_decode = task.is_slow_to_decode(example, options)
        return request

    def _new(
        self,
        submitted: float,
        rows: Sequence[Row],
        finish: Finish,
        first_rows: Optional[Sequence[int]] = None,
        whole: Optional[Whole] = None,
        breakdown: bool = False,
    ) -> Request:
        return Request(
            next(self._ids),
            rows,
            finish,
            submitted,
            first_rows=first_rows,
            whole=whole,
            wants_breakdown=breakdown,
        )

    def _output(self, read: Mapping[int, Outputs]) -> Any:
        return self.task.MODEL_OUTPUT(**read[0])

    def _stacked_output(self, read: Mapping[int, Outputs]) -> Any:
        return self.task.MODEL_OUTPUT(**stacked(list(read.values())))


@functools.lru_cache(maxsize=64)
def _options_of(kinds: Tuple[Type[Any], Type[Any]], items: Tuple[Tuple[str, Type[Any], Any], ...]) -> Options:
    return options_of(kinds, {name: value for name, _, value in items})


def _tokenizer(artifact: Artifact, placement: Placement) -> Tokenizer:
    tokenizer = Tokenizer.from_files(artifact.folder)
    tokenizer.first_rows = artifact.first_rows
    tokenizer.few_texts = 0  # batches are encoded without holding up the runner's thread
    lengths = [variant["sequence_length"] for variant in placement.variants if variant["sequence_length"]]
    if lengths:
        tokenizer.limit_length(max(lengths))
    return tokenizer
