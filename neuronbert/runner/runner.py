"""The multi-worker runner: one process per core group or CPU share, and requests that all get exactly one outcome."""

import asyncio
import functools
import time
from collections import abc
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Type, Union

from neuronbert.artifact.manifest import Artifact, PathLike, artifact_of
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.engine.loading import specs_of
from neuronbert.errors import (
    DeadlineExceeded,
    InputError,
    UsageError,
    above_zero,
    not_below_zero,
    refuse_uncallable,
    shown_value,
    yes_or_no,
)
from neuronbert.hardware.cores import CoreLayout
from neuronbert.runner.admission import Admission
from neuronbert.runner.blocks import Block, Part
from neuronbert.runner.counters import Statistics
from neuronbert.runner.dispatcher import Dispatcher
from neuronbert.runner.documents import RunnerStatistics, Work
from neuronbert.runner.events import Events, Listener
from neuronbert.runner.mapping import InputMapping
from neuronbert.runner.placement import Placement, place_workers
from neuronbert.runner.publishing import Publisher
from neuronbert.runner.request_factory import RequestFactory
from neuronbert.runner.requests import Prepared, Told, now_s
from neuronbert.runner.settings import Limits, RowFormat, Settings, settings_of
from neuronbert.runner.sigterm import SigtermHandler, end_process
from neuronbert.tasks.base import Input, Keywords


class Runner:
    """Answers from many processes: ``with Runner("qa-artifact", workers=4) as runner: runner.submit(...)``.

    What is asked and answered is up to the artifact's ``task``.

    workers: processes (default: one for each core group, or for each GPU or slice of one that CUDA_VISIBLE_DEVICES
        leaves, where more share them; on CPUs one, with as many streams as it has threads).
    variant, threads, streams: each worker's, as for Engine. layout, or instance_type and mode: the NeuronCores.
    in_flight_per_group: batches that a worker holds at once (default: 2 in data-parallel mode, p over p cores, one
        more than run at once elsewhere). More keep the device busy, 1 answers soonest.
    batch_size: rows of a batch at most, where shapes are dynamic (default: what the backend runs fastest).
    max_queue: rows (windows) that may wait; beyond it ``submit`` raises Overloaded. A request is let in whole while
        fewer wait, so that a long one has the chance of a short one: as many rows as it has may be too many then.
    max_windows_per_request: a longer context is refused, so that one document cannot hold everybody up; and so are
        inputs that are prepared together, if they need more windows in all.
    max_wait_ms: the longest that a row waits for others to share its batch while every worker is busy.
    busy_wait: idle processors of this machine poll instead of sleeping while the runner is open, so that a core with
        one request in flight gets its next sooner. For root on Linux, where a driver of cpuidle has the state POLL
        (many virtual machines have none); UsageError elsewhere. It costs power, and where processors share a core,
        speed.
    hang_timeout_s: a worker that is at one batch for so long is killed (where workers share a GPU: so many times as
        long): at least a second more than the slowest batch takes, for the runner itself may be held up for 0.6 s
        before it makes allowance for that.
    start_timeout_s: for loading and self-test of a worker. drain_timeout_s: how long ``close`` and SIGTERM let
        accepted requests finish.
    on_event: called with each event (a dictionary) in the runner's thread; they are also logged to "neuronbert.runner".
    publish: let ``neuronbert top`` watch this runner. work: what it is used for, in the user's own counts.
    drain_on_sigterm: inside ``with``, in the main thread and where nobody else handles it, SIGTERM finishes what was
        accepted and then ends the process as it would have.
    trusted_key: as for Engine; each worker, and each that takes its place, verifies the same signature.

    Results and callbacks of futures are delivered in the runner's thread, its own or the one of the event loop that it
    was given (``turn_in``): a callback must be quick. What one raises, ``sys.exit()`` too, is the event
    "callback_raised", and the runner goes on. One may ``submit``; one that waits for the runner (``result`` of what is
    not done, ``map``, ``submit_together``, ``answer``, ``close``) would wait for itself, and gets a UsageError.
    After ``os.fork`` a runner is its parent's: whatever the child asks of it raises RunnerClosed. One that is forked in
    a callback ends where the callback does.
    Raises what keeps a worker from starting (ArtifactError, BackendUnavailable, ...), and UsageError for options.
    """

    def __init__(
        self,
        artifact: Union[Artifact, PathLike],
        *,
        workers: Optional[int] = None,
        variant: Optional[str] = None,
        threads: Optional[int] = None,
        streams: Optional[int] = None,
        layout: Optional[CoreLayout] = None,
        instance_type: Optional[str] = None,
        mode: Optional[str] = None,
        in_flight_per_group: Optional[int] = None,
        batch_size: Optional[int] = None,
        max_queue: int = 1024,
        max_windows_per_request: int = 256,
        max_wait_ms: float = 5.0,
        busy_wait: bool = False,
        hang_timeout_s: float = 60.0,
        start_timeout_s: float = 600.0,
        drain_timeout_s: float = 30.0,
        on_event: Optional[Listener] = None,
        publish: bool = False,
        work: Optional[Callable[[], Work]] = None,
        drain_on_sigterm: bool = True,
        trusted_key: TrustedKey = None,
    ):
        limits = Limits(
            in_flight_per_group=in_flight_per_group,
            batch_size=batch_size,
            max_queue=max_queue,
            max_windows_per_request=max_windows_per_request,
            max_wait_ms=max_wait_ms,
            hang_timeout_s=hang_timeout_s,
            start_timeout_s=start_timeout_s,
            drain_timeout_s=drain_timeout_s,
        )
        publish, drain_on_sigterm = yes_or_no("publish", publish), yes_or_no("drain_on_sigterm", drain_on_sigterm)
        busy_wait = yes_or_no("busy_wait", busy_wait)
        refuse_uncallable("work", work, hint="a function that gives the dictionary that top shows")
        self.artifact = artifact_of(artifact, trusted_key)
        placement = place_workers(
            self.artifact,
            variant=variant,
            workers=workers,
            threads=threads,
            streams=streams,
            layout=layout,
            instance_type=instance_type,
            mode=mode,
        )
        self.layout, self.variants, self.places = placement.layout, placement.variants, placement.places
        self.events = Events(on_event)
        self.max_windows_per_request = min(limits.max_windows_per_request, limits.max_queue)
        self.drain_timeout_s = limits.drain_timeout_s
        self._statistics = Statistics(limits.max_queue)
        self._start(settings_of(self.artifact, variant, placement, limits, busy_wait), placement)
        self._sigterm = SigtermHandler(self._admission.close, self.close) if drain_on_sigterm else None
        self._publisher = Publisher(self._facts(), self.stats, work) if publish else None

    def _start(self, settings: Settings, placement: Placement) -> None:
        """Start the runner's thread and wait for its workers; raises what keeps one from starting."""
        self._dispatcher = Dispatcher(settings, self._statistics, self.events.happened)
        self._admission = Admission(self._dispatcher, self._statistics)
        try:
            self._dispatcher.start()
            # Beside the workers, which take longer for theirs.
            self._requests = RequestFactory(self.artifact, placement, self.max_windows_per_request)
            self.task, self.tokenizer = self._requests.task, self._requests.tokenizer
            self.specs = specs_of(self.artifact, self.task, self.tokenizer.config)
            reduction = self.task.REDUCTION
            reduced = () if reduction is None else reduction.OUTPUTS
            self._dispatcher.know(RowFormat(self.tokenizer.pad_id, self.specs, reduced))
            self._dispatcher.wait_until_started()
        except BaseException:  # no thread to be had, a damaged tokenizer, or Ctrl-C while the workers load
            self._dispatcher.abandon()
            raise
        if self._dispatcher.broken is not None:
            self._dispatcher.join()
            raise self._dispatcher.broken

    # ------------------------------------------------------------------ asking

    def submit(
        self, *inputs: Any, timeout_s: Optional[float] = None, breakdown: bool = False, **keywords: Any
    ) -> "Future[Any]":
        """Ask one input; the future's result is what ``pipeline`` gives.

        ``inputs`` are the texts of one input of the task, in the order of its JSON lines; ``keywords`` are the task's
        options, those of its ``pipeline``. ``timeout_s``: from now; a request that could only be late
        fails with DeadlineExceeded before it costs device time. ``breakdown``: the result is an Answered, with where
        its time went. Raises InputError and UsageError for what cannot be asked, Overloaded (at once) when the queue
        is full, when the next free place is for those that wait (``map``), or when the request and what waits are too
        much for ``timeout_s``; RunnerClosed.
        """
        return self._submit(now_s(), inputs, _seconds(timeout_s), yes_or_no("breakdown", breakdown), keywords)

    def _submit(
        self,
        submitted: float,
        inputs: Sequence[Any],
        timeout_s: Optional[float],
        breakdown: bool,
        keywords: Keywords,
    ) -> "Future[Any]":
        asked, options = self.task.call_input(*inputs, **keywords)
        self._admission.refuse_early(timeout_s)
        requests = self._requests.of_call(submitted, [asked], options, breakdown)
        return self._admission.admit(Prepared(requests, timeout_s, self._requests))[0]

    def submit_encoded(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        timeout_s: Optional[float] = None,
        breakdown: bool = False,
    ) -> "Future[Any]":
        """Ask with tokens that the caller made: int [rows, tokens] each, as for the task's model class.

        The future's result has the model's outputs by name, float32 with [rows, …]. Errors as for ``submit``.
        """
        prepared = self.prepare_encoded(
            input_ids, attention_mask, token_type_ids, timeout_s=timeout_s, breakdown=breakdown
        )
        return self._admission.admit(prepared)[0]

    def prepare(
        self,
        inputs: Sequence[Input],
        *,
        timeout_s: Optional[float] = None,
        breakdown: bool = False,
        as_documents: bool = False,
        wait: bool = False,
        **keywords: Any,
    ) -> Prepared:
        """Tokenise inputs that are let in or refused as one, by ``submit_prepared``; nothing is queued yet.

        ``inputs``: as ``map`` takes them, in any form that the task has. ``timeout_s`` counts from now, ``keywords``
        and ``breakdown`` are as for ``submit``, of every input. ``as_documents``: each result is the JSON object that a
        file of results has for it (docs/files.md), in place of what ``pipeline`` gives.
        Raises InputError for the first that cannot be asked, which names its place as ``map`` does if there are
        several: ``inputs[7]``; InputError too if all of them need more windows together than max_windows_per_request.
        Overloaded and RunnerClosed as ``submit``, as far as they can be told by now; with ``wait`` the queue may be
        full, for they will stand in the line. From any thread.
        """
        submitted = now_s()
        timeout_s, breakdown = _seconds(timeout_s), yes_or_no("breakdown", breakdown)
        if isinstance(inputs, (str, bytes, abc.Mapping)) or not isinstance(inputs, abc.Iterable):
            raise InputError(f"prepare takes several inputs, not {shown_value(inputs)}", hint="a list of them")
        if yes_or_no("wait", wait):
            self._admission.refuse_closed()
        else:
            self._admission.refuse_early(timeout_s)
        requests = self._requests.of_call(submitted, list(inputs), keywords, breakdown, as_documents)
        return Prepared(requests, timeout_s, self._requests)

    def prepare_encoded(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        timeout_s: Optional[float] = None,
        breakdown: bool = False,
    ) -> Prepared:
        """The first of two steps for what ``submit_encoded`` does in one: ``submit_prepared`` gives its one future."""
        submitted = now_s()
        timeout_s, breakdown = _seconds(timeout_s), yes_or_no("breakdown", breakdown)
        self._admission.refuse_early(timeout_s)
        batch = self.plan.rows
        request = self._requests.of_tokens(submitted, input_ids, attention_mask, token_type_ids, batch, breakdown)
        return Prepared([request], timeout_s, self._requests)

    def submit_prepared(self, prepared: Prepared, *, wait: bool = False) -> "List[Future[Any]]":
        """Let all inputs of ``prepared`` in, or none of them: the future of each, in order. Once.

        They are one request to the queue, which lets it in whole while fewer than max_queue rows wait: else Overloaded,
        at once, as for ``submit``; where it is full they may be submitted again later. With ``wait`` they stand in the
        line, as what ``map`` asks. From then on each has an outcome of its own, and cancelling one cancels no other.
        UsageError for what this runner did not prepare, or was submitted before; RunnerClosed.
        """
        if not isinstance(prepared, Prepared):
            raise UsageError(
                f"submit_prepared takes what prepare gave, not {shown_value(prepared)}",
                hint="runner.submit_prepared(runner.prepare(inputs))",
            )
        if prepared.maker is not self._requests:
            raise UsageError("another runner prepared these inputs", hint="submit_prepared of the one that did")
        self._admission.refuse_closed()  # they may have been prepared long ago
        return self._admission.admit(prepared, yes_or_no("wait", wait))

    def submit_together(self, batch: Batch) -> "Future[Outputs]":
        """Rows that go to one worker in one batch, nothing beside them: the same numbers whatever else is running.

        Waits while the queue is full. The future's result is the batch's Outputs.
        """
        return self._admission.admit(Prepared([self._requests.of_batch(batch)]), wait=True)[0]

    def submit_block(self, block: Block, told: Told) -> "Future[Part]":
        """Entries of a job that one worker reads, answers and writes; ``job`` says when.

        ``told`` is called in the runner's thread after each of its batches, with the share of its rows that is done:
        once more from the beginning if the worker dies. Waits while the queue is full. The future's result is its
        part of the output, or an error where no worker can answer all of it, one of its lines may be the reason.
        """
        return self._admission.admit(Prepared([self._requests.of_block(block, told)]), wait=True)[0]

    async def answer(
        self, *inputs: Any, timeout_s: Optional[float] = None, breakdown: bool = False, **keywords: Any
    ) -> Any:
        """``submit`` for asyncio: tokenises in another thread, and cancelling the task cancels the request.

        The thread is one of the event loop's own; DeadlineExceeded if none is free within ``timeout_s``.
        """
        self._admission.refuse_to_wait()
        timeout_s, breakdown = _seconds(timeout_s), yes_or_no("breakdown", breakdown)
        submit = functools.partial(self._submit, now_s(), inputs, timeout_s, breakdown, keywords)
        submitting = asyncio.get_running_loop().run_in_executor(None, submit)
        try:
            await asyncio.wait([submitting], timeout=timeout_s)
            if not submitting.done():
                raise _not_submitted(timeout_s)
        except (asyncio.CancelledError, DeadlineExceeded):  # while it is tokenised, which nothing stops
            submitting.add_done_callback(_cancel_submitted)
            raise
        return await asyncio.wrap_future(submitting.result())

    def map(self, pairs: Iterable[Input], *, on_error: str = "raise", **keywords: Any) -> Iterator[Any]:
        """The result of each input of the task, in order, over any number in bounded memory.

        An error names its input by its place, counted from 0: ``inputs[7]``.
        Where the queue is full it waits in a line, which takes turns with ``submit``: neither keeps the other out.
        ``on_error="yield"`` gives an input's error in its place instead of raising.
        """
        self._admission.refuse_to_wait()
        if on_error not in ("raise", "yield"):
            raise UsageError(f"on_error is {shown_value(on_error)}", hint="raise or yield")
        if not isinstance(pairs, abc.Iterable):
            raise InputError(f"map takes many inputs, not {shown_value(pairs)}", hint="a list of them, or a generator")
        options = self._requests.options(keywords)
        call = InputMapping(self._admission, self._requests, options, self._statistics.max_queue)
        return call.results(iter(pairs), on_error)

    def turn_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work in the thread of ``loop``, which asks, while it runs: neither then waits for the other's thread.

        From then on callbacks are called in that thread. The runner's own goes on while a worker is started or ended,
        from ``close`` on, once the loop has ended, and, after a second at most, where the loop is blocked: by what
        waits in its thread for this runner, or takes long there, which everybody else's requests then wait for too. A
        signal's handler that raises while the runner works there ends the runner, or is told as "callback_raised".
        May be called from any thread, while the loop runs or before. UsageError where another loop does it already.
        """
        self._admission.refuse_elsewhere()
        self._dispatcher.turn_in(loop)

    # ------------------------------------------------------------------ watching

    @property
    def name(self) -> str:
        """The loaded variants' names."""
        return ", ".join(variant["name"] for variant in self.variants)

    @property
    def emulated(self) -> bool:
        """Whether its workers run on an emulator: then no figure is of the hardware."""
        return any(variant["emulated"] for variant in self.variants)

    def _facts(self) -> Dict[str, object]:
        return {
            "artifact": str(self.artifact.folder.resolve()),
            "variant": self.name,
            "emulated": self.emulated,
            "started_at": time.time(),
        }

    @property
    def plan(self) -> ThroughputPlan:
        """How a worker is kept busy: the rows and tokens of a batch, and the buckets where there are any."""
        assert self._dispatcher.plan is not None, "every worker has reported before __init__ returns"
        return self._dispatcher.plan

    @property
    def rows_waiting(self) -> int:
        """Rows in the queue."""
        return self._statistics.room.rows

    @property
    def has_room(self) -> bool:
        """Whether the queue would let a request in at this moment that does not wait."""
        return self._statistics.room.is_open

    def stats(self) -> RunnerStatistics:
        """Queue, fill, padding, counters, and every worker's state, as plain JSON data."""
        self._admission.refuse_elsewhere()
        return {
            "emulated": self.emulated,
            **self._statistics.snapshot(),
            "workers": self._dispatcher.describe_workers(),
        }

    # ------------------------------------------------------------------ the end

    def close(self, timeout_s: Optional[float] = None) -> None:
        """Refuse what is new, finish what was accepted within ``timeout_s`` (drain_timeout_s), and end the workers.

        What is not finished by then fails with RunnerClosed. May be called again, from any thread but the runner's.
        """
        self._admission.refuse_to_wait()
        drain_s = self.drain_timeout_s if timeout_s is None else not_below_zero("timeout_s", timeout_s)
        self._admission.close()
        self._dispatcher.stop(drain_s)
        self._dispatcher.join()
        if self._publisher is not None:
            self._publisher.close()

    def __enter__(self) -> "Runner":
        if self._sigterm is not None:
            self._sigterm.install()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        if self._admission.is_elsewhere:  # a fork leaves the block: the runner is its parent's
            return
        if self._sigterm is not None and self._sigterm.was_received:
            self._dispatcher.join()
            end_process()
        # Nobody will look at the results if the block was left by an exception.
        self.close(0 if kind is not None else None)
        if self._sigterm is not None:
            self._sigterm.restore()


def _seconds(timeout_s: Optional[float]) -> Optional[float]:
    """The timeout of a call as a float, so that nothing behind this door can stumble over it."""
    return None if timeout_s is None else above_zero("timeout_s", timeout_s)


def _cancel_submitted(submitting: "asyncio.Future[Future[Any]]") -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().cancel()


def _not_submitted(timeout_s: Optional[float]) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"this request was not tokenised within its {timeout_s:.3g} s: no thread of the event loop's own was free",
        hint="a longer timeout_s, or more threads: loop.set_default_executor(ThreadPoolExecutor(64))",
    )
