"""Any number of lines through a runner, in order, in bounded memory, and behind whoever waits for a single answer.

``protocols/bulk`` makes a request of it. One task reads lines and asks, another writes the answers: a client may wait
for the answer of each line before it sends the next, or send a million and read slowly.
"""

import asyncio
import functools
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, AsyncIterator, Callable, List, NamedTuple, Optional, Sequence, Union

from neuronbert.errors import InputError, NeuronBertError, Overloaded, RunnerClosed, UsageError
from neuronbert.runner.requests import Prepared
from neuronbert.server.exchange import INLINE_BYTES, Countdown, Exchange, refuse_more_text
from neuronbert.server.failures import KINDS, failure_of
from neuronbert.server.logs import log
from neuronbert.server.models import Model
from neuronbert.tasks.base import Input, Keywords
from neuronbert.tasks.lines import InputLine, SkippedLine, json_line, line_head, read_json_line

LOOK_S = 0.005  # how often a line that gives way looks whether others still wait
PATIENCE_S = 1.0  # after which it goes though others wait: slowly is better than never
MOST_TOGETHER = 8  # lines that are tokenised and let in together: few rows, so that others get their turn between them
MOST_UNREAD = 256  # answers of one request that nobody has read yet


class AskedLine(NamedTuple):
    """A line that the runner has, and the future of its document."""

    line: InputLine
    future: "Future[Any]"


class End(NamedTuple):
    """There are no more lines, or there is a reason to end."""

    error: Optional[BaseException]


Outcome = Union[AskedLine, SkippedLine, End]


class Bulk:
    """One request of many lines."""

    def __init__(self, exchange: Exchange, model: Model):
        self._exchange = exchange
        self._model = model
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(MOST_UNREAD)

    async def answers(self) -> AsyncIterator[bytes]:
        """For each line with an input a line of JSON: its number, its ``id``, and its result or its ``error``.

        Raises ClientGone where nobody is left to read them.
        """
        reading = asyncio.ensure_future(self._read_all())
        try:
            while True:
                outcome = await self._outcomes.get()
                if isinstance(outcome, End):
                    if outcome.error is not None:
                        raise outcome.error
                    return
                answer = await self._answer(outcome)
                self._exchange.refuse_gone()
                yield answer
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading  # it may still hold a line that the runner has
            self._forget_unread()

    def _forget_unread(self) -> None:
        while not self._outcomes.empty():
            outcome = self._outcomes.get_nowait()
            if isinstance(outcome, AskedLine):
                outcome.future.cancel()

    async def _answer(self, outcome: Union[AskedLine, SkippedLine]) -> bytes:
        if isinstance(outcome, SkippedLine):
            return json_line(outcome.document()).encode()
        line = outcome.line
        try:
            document = await asyncio.wrap_future(outcome.future)
        except Exception as error:
            failure = failure_of(error, self._exchange.request_id)
            if failure.kind == KINDS[500]:
                log.error("request %s, line %d failed", self._exchange.request_id, line.line_number, exc_info=error)
            return json_line(SkippedLine(line.line_number, failure.message, line.id).document()).encode()
        return json_line({**line_head(line.line_number, line.id), **document}).encode()

    # ---- the reading task

    async def _read_all(self) -> None:
        try:
            async for group in _groups(self._exchange, self._exchange.service.settings.max_body_bytes):
                await self._put_all(await self._ask_lines(group))
        except Exception as error:
            await self._outcomes.put(End(error))
        else:
            await self._outcomes.put(End(None))

    async def _put_all(self, outcomes: Sequence[Outcome]) -> None:
        left = list(outcomes)
        try:
            while left:
                await self._outcomes.put(left[0])
                del left[0]
        except asyncio.CancelledError:
            for outcome in left:
                if isinstance(outcome, AskedLine):
                    outcome.future.cancel()
            raise

    async def _ask_lines(self, group: Sequence["RawLine"]) -> List[Outcome]:
        """What becomes of each line, in order; blank ones are left out."""
        read = [line for line in map(self._read, group) if line is not None]
        asked = [line for line in read if isinstance(line, InputLine)]
        size_bytes = sum(len(raw.text or b"") for raw in group)
        outcomes = {line.line_number: outcome for line, outcome in zip(asked, await self._ask(asked, size_bytes))}
        return [outcomes[line.line_number] if isinstance(line, InputLine) else line for line in read]

    def _read(self, raw: "RawLine") -> Union[InputLine, SkippedLine, None]:
        if raw.text is None:
            return SkippedLine(raw.number, "longer than the server takes: --max-body-bytes says how long it may be")
        return read_json_line(raw.number, raw.text, self._model.runner.task.LINES)

    async def _ask(self, lines: Sequence[InputLine], size_bytes: int) -> List[Outcome]:
        """Ask lines together, where their options are the same and none is at fault; else each by itself."""
        if not lines:
            return []
        alike = all(line.keywords == lines[0].keywords for line in lines)
        try:
            if alike or len(lines) == 1:
                return await self._asked(lines, size_bytes)
        except (InputError, UsageError) as error:
            if len(lines) == 1:
                return [SkippedLine(lines[0].line_number, error.message, lines[0].id)]
        except NeuronBertError as error:  # the model was taken out, or has no workers: each line has its answer
            reason = failure_of(error, self._exchange.request_id).message
            return [SkippedLine(line.line_number, reason, line.id) for line in lines]
        return [outcome for line in lines for outcome in await self._ask([line], size_bytes // len(lines))]

    async def _asked(self, lines: Sequence[InputLine], size_bytes: int) -> List[Outcome]:
        """The lines with the futures of their documents, once it is their turn."""
        inputs, keywords = [line.input for line in lines], lines[0].keywords
        while True:
            self._exchange.refuse_gone()
            runner = self._model.runner
            try:
                prepare = functools.partial(self._prepare, inputs, keywords, size_bytes)
                prepared = await self._prepared(prepare, size_bytes)
                await self._wait_for_turn()
                futures = runner.submit_prepared(prepared)
            except Overloaded as error:
                await asyncio.sleep(min(PATIENCE_S, error.wait_s or LOOK_S))
            except RunnerClosed:
                self._model = self._exchange.newer(self._model)
            else:
                self._count(prepared.rows, futures)
                return [AskedLine(line, future) for line, future in zip(lines, futures)]

    def _prepare(self, inputs: Sequence[Input], keywords: Keywords, size_bytes: int) -> Prepared:
        refuse_more_text(self._model, inputs, size_bytes, self._exchange.service.settings.max_rows_per_request)
        return self._model.runner.prepare(inputs, as_documents=True, **keywords)

    async def _prepared(self, prepare: Callable[[], Prepared], size_bytes: int) -> Prepared:
        """As ``Exchange.prepared``, which watches for the end of a body that here is still read."""
        if size_bytes <= INLINE_BYTES:
            return prepare()
        return await asyncio.wrap_future(self._exchange.service.tokenising.begin(prepare, size_bytes))

    async def _wait_for_turn(self) -> None:
        """Until the workers need more, and nobody else waits for them, or has for too long."""
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + PATIENCE_S
        while True:
            self._exchange.refuse_gone()
            runner = self._model.runner
            plan = runner.plan
            # What the workers hold, and a batch for each that is ready when one of theirs is done.
            enough = plan.rows * (plan.streams + 1) * len(runner.places)
            others_wait = runner.rows_waiting >= plan.rows and loop.time() < patient_until
            if self._model.bulk_rows < enough and not others_wait:
                return
            await asyncio.sleep(LOOK_S)

    def _count(self, rows: int, futures: Sequence["Future[Any]"]) -> None:
        """Count rows as the model's of lines until the last of their futures is done."""
        model, loop, left = self._model, asyncio.get_running_loop(), Countdown(len(futures))
        model.bulk_rows += rows

        def discount() -> None:
            model.bulk_rows -= rows

        def done(_: "Future[Any]") -> None:
            if left.is_last():
                loop.call_soon_threadsafe(discount)

        for future in futures:
            future.add_done_callback(done)


class RawLine(NamedTuple):
    """A line as it came, without its end; None where it is too long to be kept."""

    number: int  # from 1
    text: Optional[bytes]


class LineSplitter:
    """Cuts what comes in parts into lines. Pure; of a line of more than ``most_bytes`` nothing is kept."""

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self._kept: List[bytes] = []
        self._bytes = 0
        self._number = 0

    def feed(self, part: bytes) -> List[RawLine]:
        """The lines that end in ``part``."""
        *ended, rest = part.split(b"\n")
        lines = []
        for text in ended:
            self._keep(text)
            lines.append(self._line())
        self._keep(rest)
        return lines

    def end(self) -> List[RawLine]:
        """The last line, where nothing ended it."""
        return [self._line()] if self._bytes else []

    def _keep(self, text: bytes) -> None:
        self._bytes += len(text)
        if self._bytes > self._most_bytes:
            self._kept.clear()
        else:
            self._kept.append(text)

    def _line(self) -> RawLine:
        self._number += 1
        text = None if self._bytes > self._most_bytes else b"".join(self._kept)
        self._kept, self._bytes = [], 0
        return RawLine(self._number, text)


async def _groups(exchange: Exchange, most_bytes: int) -> AsyncIterator[List[RawLine]]:
    """The lines that are there, so many at a time at most: nobody waits for more of them."""
    splitter = LineSplitter(most_bytes)
    async for part in exchange.parts():
        lines = splitter.feed(part)
        for first in range(0, len(lines), MOST_TOGETHER):
            yield lines[first : first + MOST_TOGETHER]
    yield splitter.end()
