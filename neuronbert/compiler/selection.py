"""Keeps the fastest candidates that pass the gate (gate.py), and records why each of the others is not kept."""

from functools import partial
from typing import List, Optional, Sequence

import numpy as np

from neuronbert.backends.base import Session, ThroughputPlan
from neuronbert.backends.buckets import BucketedSession
from neuronbert.backends.neuron.failures import NumericalError
from neuronbert.compiler.candidates import Trial, VariantEntry
from neuronbert.compiler.exporter import Exporter
from neuronbert.compiler.gate import nan_refusals
from neuronbert.compiler.second_look import second_look
from neuronbert.compiler.self_test import selftest_batch, selftest_tolerance, unmeasured_tolerance
from neuronbert.compiler.source import CompileSource, Progress
from neuronbert.compiler.timing import time_trials
from neuronbert.errors import BackendUnavailable, GateRefused, NeuronBertError
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF, NOT_FINITE, REDUCED, Agreement, GateLimits

GATE_HINT = (
    "--precision fp32, or --calibration-data with text of your own domain; --min-f1-ratio and --min-answer-f1 set "
    "what is accepted, and --skip-gate is for weights that mean nothing"
)


class Selection:
    """Times trials, asks the gate about them, and has refused ones rebuilt; ``limits`` are the gate's."""

    def __init__(self, source: CompileSource, exporter: Exporter, limits: GateLimits, progress: Progress):
        self._source = source
        self._exporter = exporter
        self._limits = limits
        self._progress = progress

    def choose(self, trials: Sequence[Trial]) -> List[Trial]:
        """Ask the gate about the fastest first; the trials that are kept, fastest first.

        Candidates of ``auto`` that are slower than one that passed are dropped without asking the gate. A refused one
        comes back with its next recipe, at its new speed.
        """
        waiting = [trial for trial in trials if trial.session is not None]
        if len(waiting) > 1:
            self._progress(f"timing {', '.join(trial.candidate.name for trial in waiting)} in turns")
            self._time(waiting)
            waiting = [trial for trial in waiting if trial.session is not None]
        kept: List[Trial] = []
        while waiting:
            waiting.sort(key=lambda trial: -trial.speed)
            trial = waiting.pop(0)
            if kept and not trial.candidate.explicit:
                trial.outcome = "slower"
                trial.why = f"{kept[0].candidate.name} is {kept[0].speed / trial.speed:.2f} times as fast"
                self._exporter.discard(trial)
                continue
            with self._exporter.guarded(trial):
                if self.passes(trial):
                    kept.append(trial)
                elif self._rebuild(trial):
                    waiting.append(trial)
        if not kept:
            raise _nothing_left(trials)
        return kept

    def _time(self, trials: Sequence[Trial]) -> None:
        source = self._source
        time_trials(trials, source.timed_rows(), source.outputs, source.tokenizer.pad_id, guard=self._exporter.guarded)

    def passes(self, trial: Trial) -> bool:
        """Whether every variant of the trial passes the gate; either way, the variants get the figures."""
        assert trial.session is not None
        reasons: List[str] = []
        if isinstance(trial.session, BucketedSession):
            entries = {variant["name"]: variant for variant in trial.variants}
            for variant, session in trial.session.parts():
                refusals = self._examine(trial, entries[variant["name"]], session, session.plan())
                reasons += [f"{variant['name']}: {reason}" for reason in refusals]
        else:
            reasons = self._examine(trial, trial.variants[0], trial.session, trial.plan)
        passed = "" if self._source.skip_gate else "it passes the gate"
        trial.outcome, trial.why = ("refused", "; ".join(reasons)) if reasons else ("kept", passed)
        return not reasons

    def _examine(self, trial: Trial, variant: VariantEntry, session: Session, plan: ThroughputPlan) -> List[str]:
        """The reasons why the gate refuses a variant; empty if it passes. The variant gets its figures."""
        source = self._source
        gate = source.gate(variant["sequence_length"])
        self._progress(f"{variant['name']}: {'comparing with the reference' if gate else 'self-test'}")
        exact = trial.candidate.is_exact and gate is not None
        selftest = trial.selftest or source.selftest
        precision = REDUCED if trial.candidate.is_reduced else variant["precision"]
        agreement: Optional[Agreement] = None
        try:
            if gate is not None:
                answers = gate.answers(session, plan)
                agreement = gate.agreement(answers)
                reasons = source.task_gate.refusals(precision, agreement, self._limits)
                if reasons and gate.renewed():
                    agreement = gate.agreement(answers)
                    reasons = source.task_gate.refusals(precision, agreement, self._limits)
                if exact and reasons:
                    self._progress(f"{variant['name']}: disagrees with the reference; asking both sides again")
                    reasons += second_look(gate, variant, answers, session, plan, partial(self._exporter.alone, trial))
            else:
                reasons = nan_refusals(session.run(selftest_batch(selftest)))
            tolerance = FP32_MAX_ABS_DIFF if exact else selftest_tolerance(selftest, session, source.outputs)
            variant["selftest_tolerance"] = tolerance
            reasons = reasons or ([] if np.isfinite(tolerance) else [NOT_FINITE])
        except NumericalError as error:
            reasons = [f"{NOT_FINITE} ({error.hint})"]
        variant.update({"agreement": None, "accuracy": None} if agreement is None else agreement.entry())
        trial.agreements += [agreement] if agreement else []
        return reasons

    def _rebuild(self, trial: Trial) -> bool:
        """Rebuild a refused trial with its next recipe. If none is left: False, or GateRefused for an explicit one."""
        self._progress(f"{trial.candidate.name}: refused: {trial.why}")
        self._exporter.discard(trial)
        if trial.recipes:
            self._exporter.export(trial)
            time_trials([trial], self._source.timed_rows(), self._source.outputs, self._source.tokenizer.pad_id)
            return True
        if trial.candidate.explicit:
            raise GateRefused(f"the gate refuses {trial.candidate.name}: {trial.why}", hint=GATE_HINT)
        return False


def keep_unloaded(source: CompileSource, trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials that were built, all of them kept, with the figures of variants that ran nowhere."""
    built = [trial for trial in trials if trial.variants]
    for trial in built:
        trial.outcome, trial.why = "kept", "compiled where there is no device: it was not loaded"
        for variant in trial.variants:
            tolerance = unmeasured_tolerance(source.selftest, source.outputs)
            variant.update({"agreement": None, "accuracy": None, "selftest_tolerance": tolerance})
    if not built:
        raise _nothing_left(trials)
    return built


def _nothing_left(trials: Sequence[Trial]) -> NeuronBertError:
    lines = "\n".join(f"  {trial.candidate.name} {trial.outcome}: {trial.why}" for trial in trials)
    kind = GateRefused if any(trial.outcome == "refused" for trial in trials) else BackendUnavailable
    return kind(f"no variant is left:\n{lines}", hint="neuronbert doctor, or --backend and --precision by name")
