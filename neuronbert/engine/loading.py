"""Loads the variants of an artifact behind one session, for engine.py, and tests each before it answers anything."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union, cast

from neuronbert.artifact.manifest import Artifact, Variant
from neuronbert.artifact.self_test_file import SelfTest, read_self_test
from neuronbert.artifact.variants import SMALL_FOLDER, self_test_folder, stages_of
from neuronbert.backends import load_backend
from neuronbert.backends.base import Session, StaticSession, ThroughputPlan
from neuronbert.backends.buckets import BucketedSession, Part
from neuronbert.backends.outputs import Output, max_difference
from neuronbert.checkpoint.families import Config
from neuronbert.engine.cascade import CascadeSession, Stage, has_sureness
from neuronbert.errors import ArtifactError, BackendFailed
from neuronbert.tasks.base import Task


class Loaded(NamedTuple):
    """A session, how to keep it busy, and the threads that keep it busy."""

    session: Session
    plan: ThroughputPlan
    pool: Optional[ThreadPoolExecutor]

    def close(self) -> None:
        """Release the threads and the model."""
        if self.pool is not None:
            self.pool.shutdown()
        self.session.close()


def specs_of(artifact: Artifact, task: Task, config: Config) -> Tuple[Output, ...]:
    """What the artifact's model returns, by its task and its config.json.

    ArtifactError where its manifest says otherwise: another release may give a task other outputs.
    """
    specs = task.outputs(config)
    recorded = artifact.manifest.get("outputs")  # none in schema 1
    if recorded is not None and [(each["name"], each["per"]) for each in recorded] != [spec[:2] for spec in specs]:
        raise ArtifactError(
            f"{artifact.folder} was compiled to return {', '.join(each['name'] for each in recorded)}, and {task.NAME} "
            f"is {', '.join(spec.name for spec in specs)} here",
            hint=f"compile the checkpoint again, or use neuronbert {artifact.manifest['neuronbert_version']}",
        )
    return specs


def load_variants(
    folders: Sequence[Path],
    variants: Sequence[Variant],
    outputs: Sequence[Output],
    *,
    threads: int,
    streams: Optional[int],
) -> Tuple[Session, ThroughputPlan]:
    """The session of one variant, or of several buckets behind one, and how to keep it busy."""
    backend = load_backend(variants[0]["backend"])
    for variant in variants:
        _refuse_foreign_shape(variant)
    plan = backend.throughput_plan(threads)
    streams = streams or plan.streams
    sessions: List[Session] = []
    with ExitStack() as opened:
        for folder, variant in zip(folders, variants):
            sessions.append(_load(folder, variant, outputs, threads, streams))
            opened.callback(sessions[-1].close)
        opened.pop_all()  # all are loaded: from here on the caller closes them
    if not backend.STATIC_SHAPES:
        return sessions[0], plan._replace(streams=streams)
    bucketed = BucketedSession([cast(StaticSession, session) for session in sessions], outputs, variants)
    return bucketed, bucketed.plan()


def _load(folder: Path, variant: Variant, outputs: Sequence[Output], threads: int, streams: int) -> Session:
    """The session of one variant, which may have a smaller model in front of it."""
    if "cascade" not in variant:
        return _load_stage(folder, variant, outputs, threads, streams)
    cascade = variant["cascade"]
    if not has_sureness(outputs):
        raise ArtifactError(
            f"variant {variant['name']} is a cascade, and how sure a model is, is defined for answers only",
            hint="load the larger of its two artifacts",
        )
    with ExitStack() as opened:
        large = _load_stage(folder, variant, outputs, threads, streams)
        opened.callback(large.close)
        small = _load_stage(folder / SMALL_FOLDER, cascade["variant"], outputs, threads, streams)
        opened.pop_all()
    return CascadeSession(Stage(cascade["variant"], small), Stage(variant, large), cascade["threshold"], outputs)


def _load_stage(folder: Path, variant: Variant, outputs: Sequence[Output], threads: int, streams: int) -> Session:
    """One model, whatever stands in front of it."""
    backend = load_backend(variant["backend"])
    return backend.load(folder, variant, outputs=outputs, threads=threads, streams=streams)


def _refuse_foreign_shape(variant: Variant) -> None:
    for stage in stages_of(variant):
        static = load_backend(stage["backend"]).STATIC_SHAPES
        if static != (stage["sequence_length"] is not None):
            raise ArtifactError(
                f"variant {stage['name']} says it takes {stage['sequence_length'] or 'any number of'} tokens, and "
                f"variants of {stage['backend']} take {'one shape only' if static else 'any shape'}",
                hint="compile the checkpoint again",
            )
        if static and "cascade" in variant:
            raise ArtifactError(f"variant {variant['name']} is a cascade of static shapes", hint="compile it again")


def load_tested(
    artifact: Artifact, variants: Sequence[Variant], outputs: Sequence[Output], *, threads: int, streams: int
) -> Loaded:
    """The session of an artifact's variants, with every copy of every bucket self-tested: any core may be dead."""
    folders = [artifact.variant_folder(variant) for variant in variants]
    session, plan = load_variants(folders, variants, outputs, threads=threads, streams=streams)
    try:
        for folder, parts in _parts(session, artifact, variants[0]):
            stored = read_self_test(folder, outputs)
            for part in parts:
                self_test(part.session, artifact, part.variant, stored, outputs)
    except BaseException:
        session.close()
        raise
    return Loaded(session, plan, ThreadPoolExecutor(session.concurrency) if session.concurrency > 1 else None)


def _parts(session: Session, artifact: Artifact, variant: Variant) -> List[Tuple[Path, Iterable[Union[Stage, Part]]]]:
    """What is tested by itself, by the folder with the self-test."""
    if isinstance(session, BucketedSession):
        return [(artifact.folder, session.parts())]
    if isinstance(session, CascadeSession):
        small = artifact.variant_folder(variant) / SMALL_FOLDER
        return [(small, [session.small]), (self_test_folder(artifact, variant), [session.large])]
    return [(self_test_folder(artifact, variant), [Stage(variant, session)])]


def throughput_streams(variant: Variant, threads: int) -> int:
    """The number of streams with which the variant's backend is fastest on ``threads``."""
    return load_backend(variant["backend"]).throughput_plan(threads).streams


def self_test(
    session: Session, artifact: Artifact, variant: Variant, stored: SelfTest, outputs: Sequence[Output]
) -> float:
    """Compare the session's outputs with the FP32 ones ``stored`` in the artifact; the largest difference.

    A dead or wrong runtime returns wrong numbers, not errors. Raises BackendFailed when the difference exceeds what the
    gate allowed this variant when it was compiled (``selftest_tolerance``).
    """
    where = f"variant {variant['name']} of {artifact.folder} fails its self-test"
    found, expected = session.run(stored.batch), stored.expected
    for name, array in expected.items():
        if name not in found or found[name].shape != array.shape:
            shape = found[name].shape if name in found else "is not there"
            raise BackendFailed(
                f"{where}: {name} {shape}, where the FP32 reference has {array.shape}",
                hint="compile the checkpoint again: this model has other outputs than its task",
            )
    difference = max_difference(found, expected, outputs, stored.batch.attention_mask)
    if not difference <= variant["selftest_tolerance"]:
        raise BackendFailed(
            f"{where}: logits differ from the FP32 reference by {difference:.3g}, "
            f"and {variant['selftest_tolerance']:.3g} is allowed",
            hint="neuronbert doctor; the same artifact on another machine tells a damaged runtime from a wrong one",
        )
    return difference
