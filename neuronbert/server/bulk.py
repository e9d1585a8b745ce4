"""Any number of lines through a runner, in order, in bounded memory, and behind whoever waits for a single answer.

``protocols/bulk`` makes a request of it. One task reads lines and asks, another writes the answers: a client may wait
for the answer of each line before it sends the next, or send a million and read slowly.
"""

import asyncio
import functools
import math
import time
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any, AsyncIterator, Callable, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from neuronbert.errors import InputError, NeuronBertError, Overloaded, TooManyRows, UsageError
from neuronbert.runner.requests import Prepared
from neuronbert.server.exchange import ANSWERS_NO_MORE, Exchange, too_late
from neuronbert.server.failures import ClientGone, HttpError, failure_of, forget_frames
from neuronbert.server.limits import refuse_more_text
from neuronbert.server.logs import log
from neuronbert.server.models import Model
from neuronbert.server.waiting import INLINE_BYTES, Countdown
from neuronbert.tasks.base import Input, Keywords
from neuronbert.tasks.lines import Identity, InputLine, SkippedLine, json_line, line_head, read_json_line

LOOK_S = 0.005  # how often a line that gives way looks whether others still wait
LOOK_IN_LINE_S = 0.1  # how often one that stands in the runner's line looks whether its client is still there
PATIENCE_S = 1.0  # after which it goes though others wait: slowly is better than never
MOST_TOGETHER = 8  # lines that are tokenised and let in together: few rows, so that others get their turn between them
MOST_UNREAD = 256  # lines of one request whose answers nobody has read yet, beside those of the last group
MOST_BEFORE_THE_FIRST = 32  # lines, while it is not known how long answers are
MOST_UNREAD_BYTES = 32 << 20  # of all of them, and of their answers; less where two of the longest lines have less


class AskedLine(NamedTuple):
    """A line that the runner of ``model`` has, since when, and the future of its document."""

    line: InputLine
    model: Model
    asked_at: float  # seconds of time.perf_counter
    future: "Future[Any]"

    @property
    def line_number(self) -> int:
        return self.line.line_number

    @property
    def id(self) -> Identity:
        return self.line.id


class End(NamedTuple):
    """There are no more lines, or there is a reason to end."""

    error: Optional[BaseException]


Outcome = Union[AskedLine, SkippedLine]
Futures = Tuple["Future[Any]", ...]


class Unread:
    """Counts lines whose answers were not read yet, which may be as long as the longest so far.

    ``tell``: is told whether there are any, when that changes.
    """

    def __init__(self, most_bytes: int, tell: Callable[[bool], None]):
        self._most_bytes = most_bytes
        self._tell = tell
        self._lines = self._bytes = 0
        self._longest_answer_bytes = 0  # as it is sent
        self._was_read = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether there may be more of them."""
        longest_bytes = self._longest_answer_bytes
        most_lines = min(MOST_UNREAD, self._most_bytes // longest_bytes) if longest_bytes else MOST_BEFORE_THE_FIRST
        return self._lines < max(1, most_lines) and self._bytes < self._most_bytes

    async def room(self) -> None:
        """Until there is room."""
        while not self.has_room:
            self._was_read.clear()
            await self._was_read.wait()

    def add(self, size_bytes: int) -> None:
        """A line was taken."""
        self._lines += 1
        self._bytes += size_bytes
        if self._lines == 1:
            self._tell(True)

    def remove(self, size_bytes: int, answer_bytes: int) -> None:
        """Its answer was sent."""
        self._longest_answer_bytes = max(self._longest_answer_bytes, answer_bytes)
        self._lines -= 1
        self._bytes -= size_bytes
        if not self._lines:
            self._tell(False)
        self._was_read.set()


class Bulk:
    """One request of many lines."""

    def __init__(self, exchange: Exchange, model: Model):
        self._exchange = exchange
        self._model = model
        self._settings = exchange.service.settings
        self._unread = Unread(min(2 * self._settings.max_body_bytes, MOST_UNREAD_BYTES), exchange.owe)
        self._outcomes: asyncio.Queue[Union[Tuple[Outcome, int], End]] = asyncio.Queue()  # with the bytes of each line
        self._open: Set[Futures] = set()  # that the runner has, of a group each

    async def answers(self) -> AsyncIterator[bytes]:
        """For each line with an input a line of JSON: its number, its ``id``, and its result or its ``error``.

        Raises ClientGone where nobody is left to read them.
        """
        reading = asyncio.ensure_future(self._read_all())
        try:
            while True:
                end = await self._outcomes.get()
                if isinstance(end, End):
                    if end.error is not None:
                        raise end.error
                    return
                outcome, size_bytes = end
                answer = await self._answer(outcome, size_bytes)
                self._exchange.refuse_gone()
                yield answer
                self._unread.remove(size_bytes, len(answer))
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading  # it may be about to hand lines to the runner
            for future in [future for futures in self._open for future in futures]:
                future.cancel()

    async def _answer(self, outcome: Outcome, size_bytes: int) -> bytes:
        if isinstance(outcome, SkippedLine):
            return json_line(outcome.document()).encode()
        try:
            document = await self._document(outcome)
        except ClientGone:
            raise
        except ANSWERS_NO_MORE as error:
            return await self._answer(await self._asked_again(outcome, error, size_bytes), size_bytes)
        except Exception as error:
            return await self._answer(self._failed(outcome, error), size_bytes)
        return json_line({**line_head(outcome.line_number, outcome.id), **document}).encode()

    async def _asked_again(self, asked: AskedLine, error: NeuronBertError, size_bytes: int) -> Outcome:
        """The line asked of what took the place of its model; failed where nothing did."""
        try:
            self._exchange.instead_of(asked.model, error)
        except NeuronBertError as why:
            return self._failed(asked, why)
        (outcome,) = await self._ask([asked.line], size_bytes)
        return outcome

    def _failed(self, asked: AskedLine, error: Exception) -> SkippedLine:
        failure = failure_of(error, self._exchange.request_id)
        if failure.is_ours:
            log.error("request %s, line %d failed", self._exchange.request_id, asked.line_number, exc_info=error)
        forget_frames(error)
        return SkippedLine(asked.line_number, failure.message, asked.id)

    async def _document(self, asked: AskedLine) -> Any:
        """The result of a line; DeadlineExceeded where it is not there in the time that each has from being asked."""
        if asked.future.done():
            return asked.future.result()
        timeout_s = self._exchange.timeout_s
        late_at = math.inf if timeout_s is None else asked.asked_at + timeout_s
        answered = asyncio.wrap_future(asked.future)
        try:
            while True:
                left_s = max(0.0, late_at - time.perf_counter())
                await asyncio.wait([answered], timeout=min(LOOK_IN_LINE_S, left_s))
                if answered.done():
                    return answered.result()
                if not left_s:
                    raise too_late(self._exchange)
                self._exchange.refuse_gone()
        finally:
            answered.cancel()

    # ---- the reading task

    async def _read_all(self) -> None:
        try:
            async for group in _groups(self._exchange, self._settings.max_body_bytes):
                await self._unread.room()
                read = {raw.number: line for raw, line in zip(group, map(self._read, group)) if line is not None}
                sizes = {raw.number: len(raw.text or b"") for raw in group if raw.number in read}
                for size_bytes in sizes.values():
                    self._unread.add(size_bytes)
                outcomes = await self._ask_lines(list(read.values()), sum(sizes.values()))
                for outcome in outcomes:
                    self._outcomes.put_nowait((outcome, sizes[outcome.line_number]))
        except Exception as error:
            self._outcomes.put_nowait(End(error))
        else:
            self._outcomes.put_nowait(End(None))

    async def _ask_lines(self, read: Sequence[Union[InputLine, SkippedLine]], size_bytes: int) -> List[Outcome]:
        """What becomes of each line, in order."""
        asked = [line for line in read if isinstance(line, InputLine)]
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
        return [outcome for line in lines for outcome in await self._ask([line], size_bytes)]

    async def _asked(self, lines: Sequence[InputLine], size_bytes: int) -> List[Outcome]:
        """The lines with the futures of their documents, once it is their turn."""
        inputs, keywords = [line.input for line in lines], lines[0].keywords
        patient_until = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            self._exchange.refuse_gone()
            model = self._model
            try:
                prepared = await self._prepared(model, inputs, keywords, size_bytes)
                with ExitStack() as held:
                    await self._hold(held, prepared.rows)
                    await self._wait_for_turn(model, patient_until)
                    _hold_bulk_rows(held, model, prepared.rows)
                    futures = await self._submitted(model, prepared)
                    self._when_answered(tuple(futures), held.pop_all())
            except ANSWERS_NO_MORE as error:
                self._model = self._exchange.instead_of(model, error)
            else:
                now_s = time.perf_counter()
                return [AskedLine(line, model, now_s, future) for line, future in zip(lines, futures)]

    async def _prepared(self, model: Model, inputs: Sequence[Input], keywords: Keywords, size_bytes: int) -> Prepared:
        """As ``Exchange.prepared``, which watches for the end of a body that here is still read, and does not wait."""

        def prepare() -> Prepared:
            refuse_more_text(model, inputs, size_bytes, self._settings.max_rows_per_request)
            return model.runner.prepare(inputs, as_documents=True, wait=True, **keywords)

        if size_bytes <= INLINE_BYTES:
            return prepare()
        tokenising = self._exchange.service.bulk_tokenising
        while not tokenising.has_room:
            await self._sleep()
        return await asyncio.wrap_future(tokenising.begin(prepare, size_bytes))

    async def _hold(self, held: ExitStack, rows: int) -> None:
        """Have ``held`` count rows as the client's, once it may have so many more; TooManyRows where it never may."""
        clients = self._exchange.service.clients
        while True:
            try:
                held.enter_context(clients.holding(self._exchange.client, rows))
                return
            except HttpError as error:
                if error.http_status != 429:
                    raise TooManyRows(error.message) from None
            await self._sleep()

    async def _wait_for_turn(self, model: Model, patient_until: float) -> None:
        """Until the workers need more, and nobody else waits for them, or has for too long."""
        loop, runner = asyncio.get_running_loop(), model.runner
        while True:
            plan = runner.plan
            # What the workers hold, and a batch for each that is ready when one of theirs is done.
            enough = plan.rows * (plan.streams + 1) * len(runner.places)
            is_free = runner.has_room and runner.rows_waiting < plan.rows
            if model.bulk_rows < enough and (is_free or loop.time() >= patient_until):
                return
            await self._sleep()

    async def _sleep(self) -> None:
        """For a moment; ClientGone where nobody waits any more."""
        await asyncio.sleep(LOOK_S)
        self._exchange.refuse_gone()

    async def _submitted(self, model: Model, prepared: Prepared) -> "List[Future[Any]]":
        """Let in at once where there is room; else, out of patience, in the line that takes turns with all others."""
        with suppress(Overloaded):  # another line was let in since
            if model.runner.has_room:
                return model.runner.submit_prepared(prepared)
        submit = functools.partial(model.runner.submit_prepared, prepared, wait=True)
        submitting = asyncio.get_running_loop().run_in_executor(None, submit)
        try:
            while not submitting.done():
                await asyncio.wait([submitting], timeout=LOOK_IN_LINE_S)
                self._exchange.refuse_gone()
        except BaseException:  # it stays in the line until it is let in
            submitting.add_done_callback(_cancel_submitted)
            raise
        return submitting.result()

    def _when_answered(self, futures: Futures, held: ExitStack) -> None:
        """Let go of what is ``held`` once the last of the futures is done."""
        loop, left = asyncio.get_running_loop(), Countdown(len(futures))
        self._open.add(futures)
        held.callback(self._open.discard, futures)

        def done(_: "Future[Any]") -> None:
            if left.is_last():
                loop.call_soon_threadsafe(held.close)

        for future in futures:
            future.add_done_callback(done)


def _hold_bulk_rows(held: ExitStack, model: Model, rows: int) -> None:
    """Have ``held`` count rows as the model's of lines."""
    model.bulk_rows += rows

    def discount() -> None:
        model.bulk_rows -= rows

    held.callback(discount)


def _cancel_submitted(submitting: "asyncio.Future[List[Future[Any]]]") -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        for future in submitting.result():
            future.cancel()


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

    @property
    def kept_bytes(self) -> int:
        """Of a line whose end is still to come."""
        return self._bytes if self._kept else 0

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
    splitter, unfinished = LineSplitter(most_bytes), exchange.service.unfinished
    counted = 0
    try:
        async for part in exchange.parts():
            lines = splitter.feed(part)
            for first in range(0, len(lines), MOST_TOGETHER):
                yield lines[first : first + MOST_TOGETHER]
            counted, more = splitter.kept_bytes, splitter.kept_bytes - counted
            unfinished.add(exchange.client, more)
        yield splitter.end()
    finally:
        unfinished.remove(exchange.client, counted)
