"""The form of neuronbert.json (manifest.py), schema versions 1 and 2: everything that code reads of it by name."""

from typing import Dict

from neuronbert.hardware.cuda import GpuRecord
from neuronbert.hardware.schema import FLAG, NUMBER, TEXT, Form, Schema, form_of, list_of, object_of, record, whole

MOST = 1 << 40  # for counts and sizes in general: no float loses such a number
MAX_TOKENS = 1 << 20
MAX_ROWS = 1 << 16
MAX_CORES = 1 << 10
MAX_THREADS = 1 << 16
MAX_LAYERS = 1 << 10
# As hardware/requirements.py reads them: ">=2024.4,<2027".
_CLAUSE = r"\s*(>=|<=|==|!=|~=|>|<)\s*v?[0-9]{1,9}(\.[0-9]{1,9}){0,9}(\.\*)?\s*"

SHA256: Form = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
# It is the name of a folder too.
VARIANT_NAME: Form = {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]*$", "maxLength": 200}
# It becomes part of the names of variants, and of folders.
PRECISION: Form = {**VARIANT_NAME, "maxLength": 40}
SPECIFIER: Form = {"type": "string", "pattern": f"^({_CLAUSE}(,{_CLAUSE})*)?$"}

CHECKPOINT = record(
    {
        "source": TEXT,
        "revision": {"type": ["string", "null"]},
        "fingerprint": TEXT,
        "architecture": TEXT,
        "parameters": whole(0, MOST),
        "encoder_parameters": whole(0, MOST),
    }
)

# What errors quote is one line.
WORD: Form = {"type": "string", "pattern": "^[ -~]*$", "maxLength": 200}
_NAMES: Form = {"type": "object", "patternProperties": {"^[A-Za-z0-9._-]+$": SPECIFIER}, "additionalProperties": False}

REQUIRES = record(
    {}, {"cpu_flags": list_of(WORD), "libraries": _NAMES, "device": WORD, "compute_capability": SPECIFIER}
)  # a name that is not here, hardware/requirements.py does not know either: it says so

PADDING = record({"multiple": whole(1, MAX_TOKENS), "limit": whole(0, MAX_TOKENS), "pad_id": whole(0, MOST)})

# What backends read of how a variant was made; the rest is for people.
RECIPE: Dict[str, Form] = {
    "padding": PADDING,
    "inputs": list_of(TEXT),
    "instance_type": TEXT,
    "mode": TEXT,
    "pipeline": {"type": ["string", "null"]},
    "refused_pipeline_cores": list_of(whole(1, MAX_CORES)),
}

# What of the encoder was removed before it was exported (compiler/ladder.py): what is left, by layer.
PRUNED = record(
    {
        "share_removed": {**NUMBER, "minimum": 0, "maximum": 1},
        **dict.fromkeys(("heads", "columns"), list_of(whole(1, MOST), maxItems=MAX_LAYERS)),
    }
)

# With what a benchmark compiles another shape of a variant.
SECONDS: Form = {**NUMBER, "minimum": 0, "maximum": MOST}
AGAIN: Dict[str, Form] = {
    "auto_cast": TEXT,
    "auto_cast_type": {"type": ["string", "null"]},
    "compiler_timeout_s": {**SECONDS, "type": ["number", "null"]},
}

SHAPE = {"batch_size": MAX_ROWS, "sequence_length": MAX_TOKENS, "pipeline_cores": MAX_CORES}

_VARIANT: Dict[str, Form] = {
    "name": VARIANT_NAME,
    "backend": WORD,
    "precision": PRECISION,
    **{name: whole(1, maximum, "null") for name, maximum in SHAPE.items()},
    "compiler_args": list_of(TEXT),
    "emulated": FLAG,
    "batch_invariant": FLAG,
    "requires": REQUIRES,
    "recipe": record({}, {**RECIPE, "pruned": PRUNED, "student": record({"checkpoint": CHECKPOINT})}),
    "versions": object_of(TEXT),
    "files": object_of(SHA256),
    "selftest_tolerance": {**NUMBER, "minimum": 0, "maximum": 1e30},
    "agreement": {"type": ["object", "null"]},
    "accuracy": {"type": ["object", "null"]},
}

# Of a variant that asks a smaller model first (compiler/cascade.py).
CASCADE = record(
    {
        "variant": record(_VARIANT),
        "checkpoint": CHECKPOINT,
        "threshold": {**NUMBER, "minimum": 0, "maximum": 1},
        "share_of_large": {**NUMBER, "minimum": 0, "maximum": 1},
        "speedup": NUMBER,
    }
)

VARIANT = record(_VARIANT, {"cascade": CASCADE})

# What the gate compared a cascade with, in place of FP32: the large model, and whether that one's own gate was skipped.
REFERENCE = record({"variant": VARIANT_NAME, "skipped": FLAG})

# A variant that takes batches of one shape only.
_BUCKET = {name: whole(1, SHAPE[name]) for name in ("batch_size", "sequence_length")}
SHAPED_ON_CPU = Schema(
    **record(
        {
            **_BUCKET,
            "recipe": record({"inputs": RECIPE["inputs"], "tuning_minutes": SECONDS, "threads": whole(1, MAX_THREADS)}),
            "compile_s": SECONDS,
        }
    )
)
SHAPED_ON_CORES = Schema(
    **record(
        {
            **_BUCKET,
            "pipeline_cores": whole(1, MAX_CORES),
            "recipe": record({**{name: form for name, form in RECIPE.items() if name != "padding"}, **AGAIN}),
            "compile_s": SECONDS,
        }
    )
)

# Of the environment: artifacts that were made before GPUs were recorded have none.
GPUS = list_of(form_of(GpuRecord))

# How many rows of a long input are read at first, and what that costs (compiler/row_selection.py).
ROW_SELECTION = record(
    {
        "first_rows": whole(1, MAX_ROWS),
        "measured": {
            **record(dict.fromkeys(("n", "rows", "rows_read", "accuracy", "full_accuracy"), NUMBER)),
            "type": ["object", "null"],
        },
    }
)

OUTPUT = record({"name": WORD, "per": {"enum": ["token", "row"]}})

# From version 2 on.
WITH_OUTPUTS = Schema(**record({"outputs": list_of(OUTPUT, minItems=1, maxItems=64)}, {"pooling": WORD}))

MANIFEST = Schema(
    **record(
        {
            "schema_version": whole(1, MOST),
            "neuronbert_version": TEXT,
            "created_at": TEXT,
            "task": TEXT,
            "checkpoint": CHECKPOINT,
            "variants": list_of(VARIANT),
            "gate": record({"skipped": FLAG}, {"reference": REFERENCE}),
            "files": object_of(SHA256),
            "environment": record({}, {"gpus": GPUS}),
        },
        {"row_selection": ROW_SELECTION},
    )
)
