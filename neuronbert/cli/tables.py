"""Results as text for a person: tables of plain characters, made from data that the verbs return."""

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from neuronbert.artifact.signatures import signature_state
from neuronbert.artifact.variants import stages_of
from neuronbert.hardware.cuda import gpus_in_words
from neuronbert.tasks import load_figures

if TYPE_CHECKING:  # a table must not load what made its data: `inspect` has no use for a tokenizer
    from neuronbert.artifact.manifest import Artifact, Variant
    from neuronbert.runner.job import JobReport
    from neuronbert.tasks.base import Table, TaskFigures


def table(rows: Sequence[Sequence[str]], header: Optional[Sequence[str]] = None) -> str:
    """Rows as left-aligned columns, two spaces apart."""
    lines = ([list(header)] if header else []) + [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def compile_report(artifact: "Artifact") -> str:
    """What compile kept and what it left out, two lines for each candidate, and the artifact's variants."""
    figures = load_figures(artifact.task)
    lines = [line for trial in artifact.manifest["selection"] for line in trial_lines(trial, figures)]
    names = ", ".join(variant["name"] for variant in artifact.variants)
    emulated = " (emulated)" if any(variant["emulated"] for variant in artifact.variants) else ""
    return "\n".join([*lines, f"{artifact.folder}: {names}{emulated}"])


def trial_lines(trial: Mapping[str, Any], figures: "TaskFigures") -> List[str]:
    """A candidate's outcome and reason, and its comparison with the FP32 reference."""
    rates = sorted(trial["windows_per_s"])
    speed = f" ({rates[len(rates) // 2]:.1f} windows/s here)" if rates else ""
    why = f": {trial['why']}" if trial["why"] else ""
    agreement = trial["agreement"]
    return [
        f"{trial['name']} {trial['outcome']}{speed}{why}",
        "  " + (figures.agreement_text(agreement) if agreement else "not compared with the FP32 reference"),
    ]


def manifest_table(artifact: "Artifact") -> str:
    """The manifest as a person reads it."""
    manifest = artifact.manifest
    checkpoint = manifest["checkpoint"]
    files = len(manifest["files"]) + sum(len(variant["files"]) for variant in artifact.variants)
    facts = [
        ("artifact", str(artifact.folder)),
        ("made", f"{manifest['created_at']} by neuronbert {manifest['neuronbert_version']}"),
        ("schema", str(manifest["schema_version"])),
        ("task", artifact.task),
        ("checkpoint", _source(checkpoint)),
        ("fingerprint", checkpoint["fingerprint"]),
        ("parameters", f"{checkpoint['parameters']:,}, of them {checkpoint['encoder_parameters']:,} in the encoder"),
        ("gate", _gate(manifest["gate"])),
        *_row_selection(manifest),
        *_cascades(artifact.variants),
        *_students(artifact.variants),
        *_pruned(artifact.variants),
        ("machine", _machine(manifest["environment"])),
        ("checksums", f"all {files} files verified"),
        ("signature", _signature(artifact)),
    ]
    return f"{table(facts)}\n\n{variants_table(artifact.variants, load_figures(artifact.task))}"


def _row_selection(manifest: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """How the artifact reads a long input, where it does not read all of it."""
    if "row_selection" not in manifest:
        return []
    first, measured = manifest["row_selection"]["first_rows"], manifest["row_selection"]["measured"]
    cost = (
        f"{measured['rows_read']:.1f} of {measured['rows']:.1f} windows, and scores {measured['accuracy']:.2f} where "
        f"all of them give {measured['full_accuracy']:.2f} ({measured['n']:.0f} questions)"
        if measured
        else "fewer windows; what that costs was not measured"
    )
    return [("long inputs", f"select_windows={first} reads {cost}")]


def _gate(gate: Mapping[str, Any]) -> str:
    if gate["skipped"]:
        return "SKIPPED: nothing was compared with FP32"
    if "reference" not in gate:
        return "passed"
    own = ", whose own gate was SKIPPED" if gate["reference"]["skipped"] else ""
    return f"passed, compared with the large model, {gate['reference']['variant']}{own}"


def _cascades(variants: Sequence["Variant"]) -> List[Tuple[str, str]]:
    """Which variants ask a smaller model first."""
    return [("cascade", cascade_text(variant)) for variant in variants if "cascade" in variant]


def cascade_text(variant: Mapping[str, Any]) -> str:
    """Which model is asked first, and how often the other one is."""
    cascade = variant["cascade"]
    small, source = cascade["variant"]["name"], _source(cascade["checkpoint"])
    return (
        f"{small} of {source} is asked first; where it is less than {cascade['threshold']:.1%} sure, so is the large "
        f"model, {cascade['share_of_large']:.0%} of the gate's windows: {cascade['speedup']:.2f} times as fast as alone"
    )


def _students(variants: Sequence["Variant"]) -> List[Tuple[str, str]]:
    """Which models are of another checkpoint, the student."""
    students = [
        (stage["name"], stage["recipe"]["student"]["checkpoint"])
        for variant in variants
        for stage in stages_of(variant)
        if "student" in stage["recipe"]
    ]
    return [("student", f"{name} is of {_source(of)}, {of['parameters']:,} parameters") for name, of in students]


def _pruned(variants: Sequence["Variant"]) -> List[Tuple[str, str]]:
    """What encoders lack, and what is left in each layer."""
    stages = (stage for variant in variants for stage in stages_of(variant))
    return [("pruned", _pruned_text(stage)) for stage in stages if "pruned" in stage["recipe"]]


def _pruned_text(variant: Mapping[str, Any]) -> str:
    pruned = variant["recipe"]["pruned"]
    heads, columns = (" ".join(map(str, pruned[kind])) for kind in ("heads", "columns"))
    return (
        f"{variant['name']} lacks {pruned['share_removed']:.0%} of the encoder's multiply-adds; left in each layer: "
        f"{heads} heads, {columns} feed-forward columns"
    )


def cascade_report(artifact: "Artifact") -> str:
    """What cascade made."""
    (variant,) = artifact.variants
    return f"{artifact.folder}: {cascade_text(variant)}\n\n{variants_table([variant], load_figures(artifact.task))}"


def _signature(artifact: "Artifact") -> str:
    found = signature_state(artifact.folder, artifact.signed_by)
    more = " (--trusted-key FILE.pub verifies it)" if found["state"] == "not verified" else ""
    return f"{found['state']}{more}" + (f", by {found['fingerprint']}" if found["fingerprint"] else "")


def variants_table(variants: Sequence["Variant"], figures: "TaskFigures") -> str:
    """One line for each variant, in the order of preference."""
    rows = [_variant_cells(variant, figures) for variant in variants]
    return table([list(row.values()) for row in rows], list(rows[0]) if rows else None)


def _variant_cells(variant: "Variant", figures: "TaskFigures") -> Dict[str, str]:
    return {
        "variant": variant["name"] + (" (EMULATED)" if variant["emulated"] else ""),
        "shape": f"{variant['batch_size'] or 'any'} × {variant['sequence_length'] or 'any'}",
        **_compared(variant, figures.columns(variant)),
        "batch invariant": "yes" if variant["batch_invariant"] else "no",
        "requires": _requirements(variant["requires"]),
        "made with": ", ".join(f"{name} {version}" for name, version in variant["versions"].items()),
    }


def _compared(variant: "Variant", columns: Dict[str, str]) -> Dict[str, str]:
    """The figures' columns; a cascade's are compared with its large model."""
    if "cascade" not in variant:
        return columns
    return {heading.replace("FP32", "large model"): cell for heading, cell in columns.items()}


def _requirements(requires: Mapping[str, Any]) -> str:
    flags = [f"CPU {flag.replace('|', ' or ')}" for flag in requires.get("cpu_flags", [])]
    gpu = requires.get("compute_capability")
    flags += [f"a GPU of compute capability {gpu}"] if gpu else []
    libraries = [f"{name} {version}" for name, version in requires.get("libraries", {}).items()]
    return ", ".join(flags + libraries) or "nothing more"


def _source(checkpoint: Mapping[str, Any]) -> str:
    revision = f" at {checkpoint['revision']}" if checkpoint["revision"] else ""
    return f"{checkpoint['source']}{revision} ({checkpoint['architecture']})"


def _machine(environment: Mapping[str, Any]) -> str:
    python = f"Python {environment['python']}" if environment.get("python") else None
    parts = (environment.get("cpu_model"), gpus_in_words(environment.get("gpus", [])), python, environment.get("os"))
    return ", ".join(str(part) for part in parts if part)


def job_summary(report: "JobReport") -> str:
    """What a job did, in one line."""
    resumed = f", {report.resumed_lines:,} of them by an earlier run" if report.resumed_lines else ""
    skipped = f", {report.skipped:,} skipped" if report.skipped else ""
    return (
        f"{report.output}: {report.lines:,} lines{resumed}{skipped}, in {report.seconds:.1f} s "
        f"({report.inputs_per_s:.1f} a second, loading not counted)"
    )


def evaluation_text(parts: Sequence[Union[str, "Table"]]) -> str:
    """The lines and tables of a task's evaluation, one below the other."""
    return "\n".join(part if isinstance(part, str) else table(part.rows, part.header) for part in parts)
