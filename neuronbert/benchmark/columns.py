"""The columns of a report's points: their names, and what they are called, in which unit, for a person.

``COLUMNS`` has neuronperf's names first, then ours. report.py fills them, forms.py and page.py show them.
"""

from typing import Callable, Dict, NamedTuple, Tuple


class Column(NamedTuple):
    """How a person reads a column; ``text`` makes text of a value that is not None."""

    title: str
    unit: str
    meaning: str
    text: Callable[[float], str]


def figure(value: float) -> str:
    """Three digits, or all of a whole part that has more: 0.00512, 60.2, 304, 3,216."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _whole(value: float) -> str:
    return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _mib(value: float) -> str:
    return f"{value / 2**20:,.0f}"


def _yes_no(value: float) -> str:
    return "yes" if value else "no"


COLUMNS: Dict[str, Column] = {
    "model_filename": Column("artifact", "", "The compiled model's folder.", str),
    "instance_type": Column("instance type", "", "What the machine is called where it can be rented.", str),
    "n_models": Column("workers", "", "Processes that each hold a copy of the model.", _whole),
    "workers_per_model": Column("workers of a model", "", "Processes that feed one copy of the model.", _whole),
    "pipeline_size": Column("pipeline", "NeuronCores", "Cores that one copy of the model is spread over.", _whole),
    "batch_size": Column("batch", "rows", "Rows that the model computes at once, at most.", _whole),
    "sequence_length": Column("length", "tokens", "Tokens of a row.", _whole),
    "throughput_avg": Column("throughput", "per second", "Answers in a second.", figure),
    "latency_ms_p50": Column("p50", "ms", "Half of the answers came within this time.", figure),
    "latency_ms_p90": Column("p90", "ms", "90 of 100 answers came within this time.", figure),
    "latency_ms_p95": Column("p95", "ms", "95 of 100 answers came within this time.", figure),
    "latency_ms_p99": Column("p99", "ms", "99 of 100 answers; only of 1,000 answers or more.", figure),
    "cost_per_1m_inf": Column("cost of a million", "USD", "Of a million answers at this throughput.", figure),
    "price_usd_per_hour": Column("price", "USD an hour", "Of the instance.", str),
    "price_region": Column("price's region", "", "Where that is the price.", str),
    "price_date": Column("price's date", "", "When that was the price.", str),
    "engine": Column("engine", "", "The library or device that computes.", str),
    "variant": Column("variant", "", "The form of the model within the artifact.", str),
    "mode": Column("mode", "", "A whole model on each core group, or one spread over several cores.", str),
    "precision": Column("precision", "", "The numbers that the model computes with.", str),
    "emulated": Column("emulated", "", "On an emulator of the hardware, not on the hardware.", _yes_no),
    "threads": Column("threads of a worker", "", "CPU threads that each worker computes with.", _whole),
    "input": Column("requests", "", "Text of its own length, or rows that are full of tokens.", str),
    "protocol": Column("protocol", "", "The words in which a server was asked.", str),
    "concurrency": Column("clients", "", "Clients that each wait for an answer before they ask again.", _whole),
    "offered_qps": Column("load", "requests/s", "Requests that come in a second, whether or not answered.", _whole),
    "errors": Column("errors", "", "Requests that ended with an error, refused ones included.", _whole),
    "padding_ratio": Column("padding", "", "The share of the computed tokens that only fill up a row.", _share),
    "steady": Column("steady", "", "Whether three seconds in a row were alike, within 10 %.", _yes_no),
    "knee": Column("knee", "", "Beyond this load latency grows more than throughput.", _yes_no),
    "at_target": Column("best at target", "", "The most throughput within the latency target.", _yes_no),
    "cold_start_s": Column("start", "s", "From nothing to workers that are ready.", figure),
    "host_cpu_us": Column("CPU time of an answer", "µs", "Of all processes together.", figure),
    "memory_bytes": Column("memory", "MiB", "Of all processes together, shared pages counted once.", _mib),
    "server_tokenise_ms": Column("tokenising", "ms", "At the server, from text to tokens, on average.", figure),
    "server_queue_ms": Column("queue", "ms", "At the server, until its batch was made up, on average.", figure),
    "server_batch_wait_ms": Column("wait for others", "ms", "For rows that share the batch, on average.", figure),
    "server_worker_wait_ms": Column("wait for a worker", "ms", "In a batch that waits its turn, on average.", figure),
    "server_device_ms": Column("device", "ms", "In which the model computes, on average.", figure),
    "server_decode_ms": Column("decoding", "ms", "At the server, from numbers to the answer, on average.", figure),
    "server_total_ms": Column("at the server", "ms", "All of it; what latency has beyond is the way.", figure),
    "loadgen_throughput": Column("LoadGen", "per second", "Answers in a second as MLPerf LoadGen counts them.", figure),
    "loadgen_latency_ms_p50": Column("LoadGen p50", "ms", "Half of LoadGen's answers.", figure),
    "loadgen_latency_ms_p90": Column("LoadGen p90", "ms", "90 of 100 of LoadGen's answers.", figure),
    "loadgen_latency_ms_p95": Column("LoadGen p95", "ms", "95 of 100 of LoadGen's answers.", figure),
    "loadgen_ratio": Column("throughput of LoadGen's", "", "Our throughput as a share of LoadGen's.", _share),
    "loadgen_p50_ratio": Column("p50 of LoadGen's", "", "Our p50 as a share of LoadGen's.", _share),
    "loadgen_valid": Column("LoadGen valid", "", "Whether the run keeps MLPerf's own rules.", _yes_no),
}  # fmt: skip
# The stages of a server's own time (its header Server-Timing), and their columns.
SERVER_STAGES: Dict[str, str] = {
    stage: f"server_{stage}_ms"
    for stage in ("tokenise", "queue", "batch_wait", "worker_wait", "device", "decode", "total")
}
SPEED = (
    "throughput_avg", "latency_ms_p50", "latency_ms_p90", "latency_ms_p95", "latency_ms_p99", "cost_per_1m_inf",
)  # fmt: skip
EXPENSE = ("errors", "steady", "padding_ratio", "cold_start_s", "host_cpu_us", "memory_bytes")
SERVER = tuple(SERVER_STAGES.values())
LOADGEN = tuple(name for name in COLUMNS if name.startswith("loadgen_"))
# What was asked for: the same in many points, and named with them.
SETTING = (
    "model_filename", "instance_type", "price_usd_per_hour", "price_region", "price_date", "engine", "variant", "mode",
    "precision", "emulated", "n_models", "workers_per_model", "threads", "pipeline_size", "batch_size",
    "sequence_length", "input", "protocol",
)  # fmt: skip
LOAD = ("concurrency", "offered_qps")
MARKS = ("knee", "at_target")


def heading(name: str) -> Tuple[str, str]:
    """A column's title and its unit, for a reader; its own name where it is not one of ours."""
    return (COLUMNS[name].title, COLUMNS[name].unit) if name in COLUMNS else (name.replace("_", " "), "")


def with_unit(title: str, unit: str) -> str:
    """A heading in one: ``p95 (ms)``."""
    return f"{title} ({unit})" if unit else title


def text_of(name: str, value: object) -> str:
    """A value of a column, for a reader; a dash for none."""
    if value is None:
        return "–"
    return COLUMNS[name].text(value) if name in COLUMNS else str(value)  # type: ignore[arg-type]
