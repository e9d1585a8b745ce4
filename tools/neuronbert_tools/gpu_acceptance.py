"""What only a real NVIDIA GPU can tell, in one command and one JSON report.

    tools/gpu_acceptance                                   everything, on the first visible GPU; a quarter of an hour
    tools/gpu_acceptance --only machine,accuracy           some of it
    tools/gpu_acceptance --models bert-base --ways fp16    without BERT-large, and without torch.compile's minutes

Its parts, in order:

    machine     what doctor says; the rates of matrix products and of memory, measured
    accuracy    the demo compiled in every precision through the gate, and its F1 on XQuAD
    speed       BERT-base and BERT-large with random weights (speed depends on shapes alone) on XQuAD's rows, tokenised
                beforehand: our precisions beside transformers in FP32, TF32, AMP and FP16, and compiled, and ONNX
                Runtime where it has CUDA; in turns
    latency     one row at a time: recorded CUDA graphs, the same without, transformers
    faults      a batch that does not fit the memory; a worker that is killed
    text        questions a second from text, and what they cost the CPU

A step that fails is recorded with its words, and the next one runs; the report is written after each. Needs
neuronbert[compile,cuda,demo].
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from neuronbert.artifact.files import output_errors, replace_file
from neuronbert.backends import load_backend
from neuronbert.backends.cuda.backend import PRECISIONS
from neuronbert.errors import BackendUnavailable
from neuronbert.hardware.gpu_model import gpu_sizes, published_rows
from neuronbert.hardware.machine import environment
from neuronbert.hardware.prices import load_prices
from neuronbert_tools.console import new_parser, one_or_more, print_message
from neuronbert_tools.gpu.contenders import WAYS
from neuronbert_tools.gpu.steps import MODELS, STEPS, GpuAcceptance, Options, fastest, share_of_published

OFFERED: Sequence[Tuple[str, Iterable[str]]] = (
    ("only", STEPS),
    ("models", MODELS),
    ("precisions", PRECISIONS),
    ("ways", WAYS),
)


def parse(arguments: Sequence[str]) -> Options:
    """The command line; ends the process with 2 where an option is not what it has to be."""
    parser = new_parser(__doc__)
    parser.add_argument("--output", default="gpu-report.json", help="the report [default: gpu-report.json]")
    for name, offered in OFFERED:
        names = ",".join(offered)
        parser.add_argument(f"--{name}", metavar="NAMES", default=names, help=f"some of {names} [default: all]")
    parser.add_argument("--rounds", type=one_or_more, default=5, help="of turns in speed [default: 5]")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement from text [default: 5]")
    chosen = vars(parser.parse_args(arguments))
    for name, offered in OFFERED:
        chosen[name] = list(dict.fromkeys(part.strip() for part in chosen[name].split(",")))
        if set(chosen[name]) - set(offered):
            parser.error(f"--{name} takes {', '.join(offered)}")
    return Options(**chosen)


def make_report(options: Options, steps: Sequence[Dict[str, Any]], where: Dict[str, Any]) -> Dict[str, Any]:
    """Everything that was found, and where; one JSON document."""
    large = [row for row in published_rows() if row.model == "bert-large"]
    published = [(row.name, row.per_gpu_per_s, row.source) for row in large]
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": where,
        "options": options._asdict(),
        "failed": [step["name"] for step in steps if not step["ok"]],
        "beside_published": share_of_published(steps, published),
        "usd_per_million": costs(steps, where),
        "steps": steps,
    }


def available(precisions: Sequence[str]) -> Tuple[List[str], Dict[str, str]]:
    """Those of the precisions that this machine has, and why it has not the others; BackendUnavailable for none."""
    absent: Dict[str, BackendUnavailable] = {}
    for precision in precisions:
        try:
            load_backend("cuda").check_available(precision)
        except BackendUnavailable as error:
            absent[precision] = error
    if len(absent) == len(precisions):
        raise absent[precisions[0]]
    for precision, why in absent.items():
        print_message(f"{precision} is left out: {why.message}")
    return [name for name in precisions if name not in absent], {name: str(why) for name, why in absent.items()}


def costs(steps: Sequence[Dict[str, Any]], where: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Dollars for a million rows of each model by its fastest way of ours, on every EC2 size with this kind of GPU.

    Every GPU of a size is taken to be as fast as this one, and the host to keep them busy.
    """
    # "NVIDIA A100-SXM4-40GB" is an A100.
    names = {word.partition("-")[0] for gpu in where["gpus"][:1] for word in gpu["name"].split()}
    sizes = [size for size in gpu_sizes().values() if size.kind.name in names]
    book = load_prices()
    return [
        {
            "model": model,
            "way": name,
            "instance_type": size.instance_type,
            "price": book.price(size.instance_type).sentence(),
            "usd_per_million": book.price(size.instance_type).per_million(size.gpus * rows_per_s),
        }
        for model, (name, rows_per_s) in fastest(steps).items()
        for size in sizes
        if size.instance_type in book
    ]


def main(arguments: List[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    there, absent = available(options.precisions)
    options = options._replace(precisions=there)
    output, where = Path(options.output), dict(environment())

    def save(steps: Sequence[Dict[str, Any]]) -> None:
        # After every step: a machine may be taken away.
        with output_errors(output):
            report = {**make_report(options, steps, where), "precisions_not_there": absent}
            replace_file(output, json.dumps(report, indent=1, default=str) + "\n")

    save([])
    with tempfile.TemporaryDirectory(prefix="gpu-acceptance-") as scratch:
        acceptance = GpuAcceptance(options, Path(scratch), save)
        for name in options.only:
            STEPS[name](acceptance)
    failed = [step["name"] for step in acceptance.steps if not step["ok"]]
    print_message(f"{options.output}: {len(acceptance.steps)} steps, {len(failed)} failed")
    return 1 if failed else 0
