"""The doctor's report: every check in its order, and the checks as text for a person."""

from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from neuronbert.cli.doctor import gpu_checks, machine_checks, neuron_checks
from neuronbert.cli.doctor.facts import ENGINES, Facts, gather
from neuronbert.cli.doctor.machine_checks import FAIL, OK, WARN, Check
from neuronbert.errors import in_words

CheckFunction = Callable[[Facts], Check]

_ENGINE_CHECKS: Dict[str, CheckFunction] = {name: partial(machine_checks.check_engine, name) for name in ENGINES}

CHECKS: Dict[str, CheckFunction] = {
    "python": machine_checks.check_python,
    "libraries": machine_checks.check_required,
    **(_ENGINE_CHECKS or {"engines": machine_checks.check_engines_unknown}),
    "compiling": machine_checks.check_compiling,
    "tvm": machine_checks.check_tvm,
    "cpu": machine_checks.check_cpu,
    "threads": machine_checks.check_threads,
    "memory": machine_checks.check_memory,
    "disk": machine_checks.check_disk,
    "hub": machine_checks.check_hub,
    "torch-neuron": neuron_checks.check_torch_neuron,
    "neuron-cc": neuron_checks.check_neuron_cc,
    "inferentia": neuron_checks.check_driver,
    "neuron cores": neuron_checks.check_cores,
    "neuron env": neuron_checks.check_neuron_variables,
    "gpu": gpu_checks.check_gpu,
    "gpu env": gpu_checks.check_gpu_variables,
    "torch cuda": gpu_checks.check_torch_cuda,
}


class Examination(NamedTuple):
    """The checks, and what they looked at; None where that failed."""

    checks: List[Check]
    facts: Optional[Facts]

    def as_dict(self) -> Dict[str, Any]:
        """As plain JSON data: the checks, and beside them each fact by its name."""
        facts = {} if self.facts is None else self.facts.as_dict()
        return {"checks": [check._asdict() for check in self.checks], **facts}


def examine(facts: Optional[Facts] = None) -> Examination:
    """Every check, in the order of the report; a check that breaks reports that itself. Never raises."""
    if facts is None:
        try:
            facts = gather()
        except Exception as error:
            broken = Check("machine", FAIL, f"could not be looked at: {in_words(error)}")
            return Examination([broken], None)
    return Examination([_checked(name, check, facts) for name, check in CHECKS.items()], facts)


def render(checks: Sequence[Check]) -> str:
    """The report as text: a line for each check, ``try:`` below what can be mended, a summary."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<4}  {check.name:<{width}}  {check.found}")
        if check.mend:
            lines.append(f"{'':<{width + 8}}try: {check.mend}")
    counts = [sum(check.status == status for check in checks) for status in (OK, WARN, FAIL)]
    lines.append(f"{counts[0]} ok, {counts[1]} to look at, {counts[2]} broken")
    return "\n".join(lines)


def _checked(name: str, check: CheckFunction, facts: Facts) -> Check:
    try:
        return check(facts)
    except Exception as error:
        return Check(name, WARN, f"could not be examined: {in_words(error)}")
