"""Reads a report (report.py) that was written as JSON, here or by somebody else; a schema has what is used of it."""

from pathlib import Path
from typing import Union

from neuronbert.benchmark.report import KIND, SCHEMA_VERSION, Document
from neuronbert.errors import InputError
from neuronbert.hardware.cuda import GpuRecord
from neuronbert.hardware.schema import ANY, FLAG, TEXT, Form, Schema, form_of, list_of, object_of, record, whole
from neuronbert.hardware.untrusted import MEBIBYTE, Refusal, json_object, read_given, refuse_unfit

# It has the latency of every request: 20 MiB are two million of them.
REPORT_BYTES = 64 * MEBIBYTE
MOST = 1 << 40
REFUSAL = Refusal(InputError, "a JSON report of neuronbert benchmark")

_TEXT_OR_NULL: Form = {"type": ["string", "null"]}
_SOME_NUMBER: Form = {"type": ["number", "null"], "minimum": 0, "maximum": 1e30}
_BOUND: Form = {"type": ["number", "null"]}
_INTERVAL = list_of(_BOUND, minItems=2, maxItems=2)
_NEEDED = {
    "instance_type": _TEXT_OR_NULL,
    "engine": TEXT,
    "variant": TEXT,
    "mode": _TEXT_OR_NULL,
    "precision": TEXT,
    "emulated": FLAG,
    "n_models": whole(1, MOST, "null"),  # as the next two, of a server what it does not say
    "pipeline_size": whole(1, MOST, "null"),
    "batch_size": whole(1, MOST, "null"),
    "sequence_length": whole(1, MOST, "null"),
    "concurrency": _SOME_NUMBER,
    "offered_qps": _SOME_NUMBER,
    "throughput_avg": _SOME_NUMBER,
    "latency_ms_p50": _SOME_NUMBER,
    "latency_ms_p95": _SOME_NUMBER,
    "errors": whole(0, MOST),
    "intervals": object_of(_INTERVAL),
}
# They tell points apart too, where they are.
_TOLD = {"workers_per_model": whole(1, MOST, "null"), "threads": whole(1, MOST, "null"), "input": _TEXT_OR_NULL,
         "protocol": _TEXT_OR_NULL}  # fmt: skip
POINT = record(_NEEDED, _TOLD)
_REPORT = Schema(
    **record(
        {
            "artifact": object_of(ANY),
            "environment": record({}, {"memory_bytes": _SOME_NUMBER, "gpus": list_of(form_of(GpuRecord))}),
            "asked": object_of(ANY),
            "points": list_of(POINT),
        },
        {"server": object_of(ANY)},
    )
)


def read_report(path: Union[str, Path]) -> Document:
    """A report that was written as JSON; InputError for anything else and for another schema."""
    document = json_object(read_given(Path(path), REFUSAL, REPORT_BYTES), str(path), REFUSAL)
    if document.get("kind") != KIND:
        raise REFUSAL.of(f"{path} is not a report of neuronbert benchmark")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise REFUSAL.of(f"{path} has schema {document.get('schema_version')!r}, this version reads {SCHEMA_VERSION}")
    refuse_unfit(document, str(path), _REPORT, REFUSAL)
    return document
