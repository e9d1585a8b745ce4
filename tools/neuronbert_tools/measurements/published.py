"""The published rows on the timed emulator: one after the other, each in a child process (published_row.py)."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from neuronbert_tools.console import print_message
from neuronbert_tools.emulated_rows import measure_in_emulator
from neuronbert_tools.published_rows import blog_rows


def measure_published(
    folder: Path, *, rows: Optional[Sequence[int]], seconds: float, rounds: int, work: Path
) -> Dict[str, Any]:
    """The eight rows of the published blog table, or those numbered ``rows``; in flight as its latencies imply."""
    report: List[Dict[str, Any]] = []
    for number, row in enumerate(blog_rows(), start=1):
        if rows and number not in rows:
            continue
        measured = measure_in_emulator("measurements.published_row", row, work, folder / "cores", seconds, rounds)
        report.append({"row": number, **measured})
        print_message(report_line(number, measured))
    return {"emulated": True, "rows": report}


def report_line(number: int, measured: Mapping[str, Any]) -> str:
    """A row for a person: what the runner reached, as a share of what the device or the tokenizer can give."""
    device, tokens, text, of_device = (measured[part] for part in ("device", "tokens", "text", "of_device"))
    return (
        f"row {number} EMULATED {measured['instance_type']} {measured['mode']} batch {measured['batch_size']}: "
        f"device {device['throughput_per_s']:.0f}/s p95 {device['p95_ms']:.1f} ms; "
        f"behind bare processes {in_shares(of_device['bare'])}; from tokens {in_shares(of_device['tokens'])} "
        f"(one request more in flight: {of_device['one_more']['throughput_per_s']:.1%}), "
        f"{tokens['cpu_us']:.0f} us of CPU a sequence; from text "
        f"{text['throughput_per_s'] / min(device['throughput_per_s'], text['tokenizer_per_s']):.1%} of "
        f"{'the device' if device['throughput_per_s'] < text['tokenizer_per_s'] else 'the tokenizer'}"
    )


def in_shares(shares: Mapping[str, float]) -> str:
    """Of the device's own figures."""
    return f"{shares['throughput_per_s']:.1%}, p95 {shares['p95_ms']:.1%}"
