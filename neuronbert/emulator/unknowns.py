"""What no source settles about inf1: the emulator's third state, beside what the contract requires and what it refuses.

Where sources are silent or disagree, both behaviours are allowed. The emulator shows the first one of each entry, and
``NEURONBERT_EMULATE_UNKNOWNS=name=behaviour,…`` (``unknowns=`` of ``use``) makes it show another, so that code can be
tried against both. ``python -m neuronbert.emulator`` lists them. What an instance shows settles an entry: it then
leaves this table and becomes a contract test.

``sdk#`` is an issue of aws-neuron/aws-neuron-sdk; paths are in its repository or its documentation.
"""

from typing import Callable, Dict, List, NamedTuple, Tuple, TypedDict

from neuronbert.errors import UsageError

# Tells the name of the behaviour that is shown for the name of an entry.
Shown = Callable[[str], str]


class Unknown(NamedTuple):
    """A question about the device that nobody without one can answer."""

    name: str
    question: str
    behaviours: Tuple[Tuple[str, str], ...]  # name, and what happens; the first is shown unless another is asked for
    sources: Tuple[str, ...]  # each with what it says
    settled_by: str  # what to do on an instance, and what to look at
    cannot_show: str = ""  # why the emulator can show the first behaviour only

    @property
    def default(self) -> str:
        """The behaviour that is shown unless another is asked for."""
        return self.behaviours[0][0]


class UnknownAsJson(TypedDict):
    """An entry as ``python -m neuronbert.emulator unknowns --json`` prints it."""

    name: str
    question: str
    behaviours: Dict[str, str]
    default: str
    sources: List[str]
    settled_by: str
    cannot_show: str


UNKNOWNS: Tuple[Unknown, ...] = (
    Unknown(
        "group-sizes",
        "Does torch-neuron 1.13.1.2.11 still place models by NEURONCORE_GROUP_SIZES?",
        (
            ("honoured", "each model goes to the first cores of the next group; alone it reserves what it adds up to"),
            (
                "ignored",
                "models go to the least used cores; alone it reserves nothing, so the process takes every core",
            ),
        ),
        (
            "announcements/neuron1.x/eol-ncgs-env_2.rst: from 1.20.0 on it no longer affects behaviour",
            "torch-core-placement.rst of SDK 2.5 recommends it for pipelined models",
            "kserve#2714: torch-neuron 1.12.1 warns that it is being deprecated",
        ),
        "NEURON_RT_VISIBLE_CORES=0-3 NEURONCORE_GROUP_SIZES=3,1; torch.jit.load one model of one core twice; "
        "neuron-monitor shows cores 0 and 3 in use (honoured) or 0 and 1 (ignored)",
    ),
    Unknown(
        "num-cores-with-group-sizes",
        "May NEURON_RT_NUM_CORES and NEURONCORE_GROUP_SIZES be set together?",
        (
            ("accepted", "NEURON_RT_NUM_CORES says how many cores, the group sizes say where models go among them"),
            ("refused", "the runtime does not start"),
        ),
        (
            "appnotes/neuron1x/introducing-libnrt.rst: with NEURON_RT_NUM_CORES, the group sizes must be unset",
            "aws-neuron-tensorflow, placer.cc: sets NEURON_RT_NUM_CORES to their sum unless it is set, and goes on",
        ),
        "set both to 4 and load a model: it loads, or torch.jit.load raises",
    ),
    Unknown(
        "num-cores-list",
        "Is NEURON_RT_NUM_CORES a number only, or also a list of group sizes?",
        (
            ("groups", '"1,1" reserves two cores and makes two groups'),
            ("refused", "the runtime does not start"),
        ),
        (
            "neuron-runtime/nrt-configurable-parameters.rst: an integer",
            "appnotes/perf/neuron-cc/parallel-ncgs.rst: a comma separated list of the cores in each group",
            "triton-inference-server/python_backend#182 set it to such a list before it went over to VISIBLE_CORES",
        ),
        "NEURON_RT_NUM_CORES=1,1 and load a model: neuron-ls shows two cores held, or torch.jit.load raises",
    ),
    Unknown(
        "visible-cores-beyond",
        "What is said when NEURON_RT_VISIBLE_CORES goes beyond the instance?",
        (
            ("invalid", "nrt_init names the variable"),
            ("not-available", "nrt_allocate_neuron_cores says that the cores are not available"),
        ),
        ("silent: nrt-troubleshoot.rst has the text for cores that are taken only",),
        "NEURON_RT_VISIBLE_CORES=2-4 on an inf1.xlarge, load a model, read stderr",
    ),
    Unknown(
        "exec-timeout",
        "After how many seconds does an inference time out where NEURON_RT_EXEC_TIMEOUT is unset?",
        (("30", "thirty"), ("2", "two")),
        (
            "neuron-runtime/guides/configuration-guide.rst: 30 in its table, 2 in its prose",
            "neuron-runtime/nrt-configurable-parameters.rst v2.9.1: 30",
        ),
        "an inference that takes 5 s (a large batch of a large model) ends well, or with status=5",
    ),
    Unknown(
        "joined-fast-math",
        'Does neuron-cc take the values of --fast-math as one argument, "fp32-cast-matmult no-fast-relayout"?',
        (
            ("split", "as if they were two"),
            ("refused", "the compile fails"),
        ),
        (
            "compiler/neuron-cc/command-line-reference.rst: separate values",
            "neuronperf, compile_constants.py: performance level 1 is one such string",
        ),
        'torch.neuron.trace(…, compiler_args=["--fast-math", "fp32-cast-matmult no-fast-relayout"])',
    ),
    Unknown(
        "string-compiler-args",
        "May compiler_args be a string?",
        (
            ("split", "it is cut into arguments as a shell does"),
            ("refused", "trace raises a TypeError"),
        ),
        (
            "archive/torch-neuron/api-compilation-python-api.rst: a list of strings",
            'sdk#395: compiler_args="-O2" compiled',
        ),
        'torch.neuron.trace(…, compiler_args="--fast-math none") and the command line that it logs',
    ),
    Unknown(
        "pipeline-cores-rounded",
        "Does neuron-cc use as many pipeline cores as it is asked for? (sdk#291 settles that it accepts 7.)",
        (
            ("as-asked", "7 cores are 7"),
            ("to-fours", "7 cores become 8"),
        ),
        ("silent: AWS's formula gives multiples of 4, the core placement guide has models of 2 and 3 cores",),
        "compile with --neuroncore-pipeline-cores 7, load it with NEURON_RT_NUM_CORES=7: it loads, or it lacks a core",
    ),
    Unknown(
        "int64-inputs",
        "Does neuron-cc compile a subgraph with an int64 input?",
        (
            ("compiled", "yes"),
            ("refused", "the compile fails, and the subgraph stays on the CPU"),
        ),
        (
            "release-notes/archive/neuron-cc/neuron-cc.rst: no INT64 I/O",
            "sdk#410, sdk#269 and gonsoomoon-ml/lab compile.out (neuron-cc 1.24): --io-config has int64 inputs; "
            "a log of such a compile that ended well was not found",
        ),
        "torch.neuron.trace of x + torch.relu(y) for a float x and an int64 y",
    ),
    Unknown(
        "model-argument",
        "What is the model argument of neuron::forward_v2_*, beyond its type?",
        (
            ("tensor", "a uint8 Tensor, a buffer of the module"),
            ("class", "__torch__.torch.classes.neuron.Model, an attribute of a NeuronModuleV2"),
        ),
        (
            "netron#930, djl#1178: the type is __torch__.torch.classes.neuron.Model, and torch.jit.load without "
            "torch_neuron says so (Unknown type name)",
            "silent: what the class holds and can do",
        ),
        "print(model.inlined_graph); torch.jit.load(PATH).state_dict()",
        cannot_show="torch takes such classes from C++ only (torch::class_), and the emulator is Python",
    ),
)
_BY_NAME = {entry.name: entry for entry in UNKNOWNS}


def default_behaviour(name: str) -> str:
    """The behaviour of an entry that is shown unless another is asked for."""
    return _BY_NAME[name].default


def parse_unknowns(text: str) -> Tuple[Tuple[str, str], ...]:
    """``name=behaviour,…``; UsageError for a name or behaviour that is not in the table, or cannot be shown."""
    return tuple(_parse_unknown(part.strip()) for part in text.split(",") if part.strip())


def _parse_unknown(text: str) -> Tuple[str, str]:
    name, _, behaviour = text.partition("=")
    entry = _BY_NAME.get(name)
    if entry is None:
        raise UsageError(f"nothing is unknown about {name!r}", hint=f"one of {', '.join(_BY_NAME)}")
    known = [known for known, _ in entry.behaviours]
    if behaviour not in known:
        raise UsageError(f"{name} has no behaviour {behaviour!r}", hint=f"{name}={' or '.join(known)}")
    if entry.cannot_show and behaviour != entry.default:
        raise UsageError(f"{text} cannot be emulated: {entry.cannot_show}", hint=f"{name}={entry.default}")
    return name, behaviour


def as_json(entry: Unknown) -> UnknownAsJson:
    """An entry as plain data."""
    return {
        "name": entry.name,
        "question": entry.question,
        "behaviours": dict(entry.behaviours),
        "default": entry.default,
        "sources": list(entry.sources),
        "settled_by": entry.settled_by,
        "cannot_show": entry.cannot_show,
    }


def as_text(entry: Unknown) -> str:
    """An entry for a person to read."""
    shown = " (cannot be emulated)" if entry.cannot_show else ""
    lines = [f"{entry.name}: {entry.question}"]
    for name, meaning in entry.behaviours:
        lines.append(f"    {name}: {meaning}{' (shown by default)' if name == entry.default else shown}")
    lines += [f"    source: {source}" for source in entry.sources]
    lines.append(f"    to settle it: {entry.settled_by}")
    return "\n".join(lines)
