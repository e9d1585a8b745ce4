"""Results as text for a person: tables of plain characters, made from data that the verbs return."""

from typing import TYPE_CHECKING, Any, Iterable, List, Mapping, Optional, Sequence

if TYPE_CHECKING:  # a table must not load what made its data
    from neuronbert.artifact.manifest import Artifact
    from neuronbert.benchmark.evaluation import Comparison, EvaluationReport
    from neuronbert.runner.job import JobReport


def table(rows: Sequence[Sequence[str]], header: Optional[Sequence[str]] = None) -> str:
    """Rows as left-aligned columns, two spaces apart."""
    lines = ([list(header)] if header else []) + [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def compile_report(artifact: "Artifact") -> str:
    """What compile kept and what it left out, two lines for each candidate, and the artifact's variants."""
    lines = [line for trial in artifact.manifest["selection"] for line in trial_lines(trial)]
    names = ", ".join(variant["name"] for variant in artifact.variants)
    emulated = " (emulated)" if any(variant["emulated"] for variant in artifact.variants) else ""
    return "\n".join([*lines, f"{artifact.folder}: {names}{emulated}"])


def trial_lines(trial: Mapping[str, Any]) -> List[str]:
    """A candidate's outcome and reason, and its comparison with the FP32 reference."""
    rates = sorted(trial["windows_per_s"])
    speed = f" ({rates[len(rates) // 2]:.1f} windows/s here)" if rates else ""
    why = f": {trial['why']}" if trial["why"] else ""
    agreement = trial["agreement"]
    return [
        f"{trial['name']} {trial['outcome']}{speed}{why}",
        "  " + (agreement_text(agreement) if agreement else "not compared with the FP32 reference"),
    ]


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """The figures that the gate decides by, and those that are only reported."""
    return (
        f"F1 {agreement['f1']:.2f} of {agreement['reference_f1']:.2f} in FP32, answer F1 {agreement['answer_f1']:.3f}, "
        f"top-1 equal {agreement['top1_agreement']:.1%}, {_logits_text(agreement['max_abs_diff'])} "
        f"({agreement['n']} questions)"
    )


def _logits_text(max_abs_diff: Optional[float]) -> str:
    return "logits with NaN or Inf" if max_abs_diff is None else f"logits within {max_abs_diff:.2g}"


def manifest_table(artifact: "Artifact") -> str:
    """The manifest as a person reads it."""
    manifest = artifact.manifest
    checkpoint = manifest["checkpoint"]
    files = len(manifest["files"]) + sum(len(variant["files"]) for variant in artifact.variants)
    facts = [
        ("artifact", str(artifact.folder)),
        ("made", f"{manifest['created_at']} by neuronbert {manifest['neuronbert_version']}"),
        ("schema", str(manifest["schema_version"])),
        ("checkpoint", _source(checkpoint)),
        ("fingerprint", checkpoint["fingerprint"]),
        ("parameters", f"{checkpoint['parameters']:,}, of them {checkpoint['encoder_parameters']:,} in the encoder"),
        ("gate", "SKIPPED: nothing was compared with FP32" if manifest["gate"]["skipped"] else "passed"),
        ("machine", _machine(manifest["environment"])),
        ("checksums", f"all {files} files verified"),
    ]
    return f"{table(facts)}\n\n{variants_table(artifact.variants)}"


def variants_table(variants: Sequence[Mapping[str, Any]]) -> str:
    """One line for each variant, in the order of preference."""
    header = ("variant", "shape", "F1 (FP32)", "top-1 equal", "batch invariant", "requires", "made with")
    return table([_variant_row(variant) for variant in variants], header)


def _variant_row(variant: Mapping[str, Any]) -> List[str]:
    accuracy, agreement = variant["accuracy"], variant["agreement"]
    return [
        variant["name"] + (" (EMULATED)" if variant["emulated"] else ""),
        f"{variant['batch_size'] or 'any'} × {variant['sequence_length'] or 'any'}",
        f"{accuracy['f1']:.2f} ({accuracy['reference_f1']:.2f})" if accuracy else "not measured",
        f"{agreement['top1_agreement']:.1%} of {agreement['n']}" if agreement else "not measured",
        "yes" if variant["batch_invariant"] else "no",
        _requirements(variant["requires"]),
        ", ".join(f"{name} {version}" for name, version in variant["versions"].items()),
    ]


def _requirements(requires: Mapping[str, Any]) -> str:
    flags = [f"CPU {flag.replace('|', ' or ')}" for flag in requires.get("cpu_flags", [])]
    libraries = [f"{name} {version}" for name, version in requires.get("libraries", {}).items()]
    return ", ".join(flags + libraries) or "nothing more"


def _source(checkpoint: Mapping[str, Any]) -> str:
    revision = f" at {checkpoint['revision']}" if checkpoint["revision"] else ""
    return f"{checkpoint['source']}{revision} ({checkpoint['architecture']})"


def _machine(environment: Mapping[str, Any]) -> str:
    return ", ".join(str(environment[key]) for key in ("cpu_model", "python", "os") if environment.get(key))


def answers_text(ranked: Iterable[Mapping[str, Any]]) -> str:
    """One line for each answer: its text, then its score and place."""
    return "\n".join(
        f"{answer['answer'] or '(no answer)'}  (score {answer['score']:.4f}, "
        f"characters {answer['start']} to {answer['end']}{_details_text(answer)})"
        for answer in ranked
    )


def _details_text(answer: Mapping[str, Any]) -> str:
    if "null_difference" not in answer:
        return ""
    window = "" if answer["window"] is None else f", window {answer['window']}"
    return f"{window}, null difference {answer['null_difference']:.2f}"


def evaluation_table(report: "EvaluationReport") -> str:
    """The figures of an evaluation, and every answer that changed if it compares two artifacts."""
    low, high = report.f1_interval
    facts = [
        ("artifact", f"{report.artifact} ({report.variant})"),
        ("data", f"{report.data}: {report.questions} questions, SQuAD {report.version}"),
        *((name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in report.metrics.items()),
        ("f1, 95 % interval", f"{low:.2f} to {high:.2f}"),
        ("questions/s", f"{report.questions_per_s:.1f} (from text to answers, loading not counted)"),
    ]
    comparison = report.comparison
    return table(facts) + (f"\n\n{comparison_text(comparison)}" if comparison else "")


def comparison_text(comparison: "Comparison") -> str:
    """How many answers differ from those compared with, and each that does."""
    summary = (
        f"against {comparison.against}: {comparison.equal_answers:.1%} of the answers equal, "
        f"token F1 {comparison.answer_f1:.3f}, its own F1 {comparison.metrics['f1']:.4f}; "
        f"{len(comparison.changed)} changed"
    )
    rows = [
        [
            changed.id,
            f"{_short(changed.against_answer)} ({changed.against_score:.2f})",
            f"{_short(changed.answer)} ({changed.score:.2f})",
            _short(" | ".join(dict.fromkeys(changed.golds)) or "(no answer)"),
        ]
        for changed in comparison.changed
    ]
    return summary + ("\n" + table(rows, ("question", "was", "is", "gold")) if rows else "")


def job_summary(report: "JobReport") -> str:
    """What a job did, in one line."""
    resumed = f", {report.resumed_lines:,} of them by an earlier run" if report.resumed_lines else ""
    skipped = f", {report.skipped:,} skipped" if report.skipped else ""
    return (
        f"{report.output}: {report.lines:,} lines{resumed}{skipped}, in {report.seconds:.1f} s "
        f"({report.questions_per_s:.1f} questions/s, loading not counted)"
    )


def _short(text: str, characters: int = 40) -> str:
    text = " ".join(text.split()) or "(no answer)"
    return text if len(text) <= characters else text[: characters - 1] + "…"
