"""What the emulator is asked to be: instance, faults, unknowns, timing, its folder. Read from the environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple

from neuronbert.emulator.faults import Fault, parse_faults
from neuronbert.emulator.unknowns import default_behaviour, parse_unknowns
from neuronbert.errors import UsageError
from neuronbert.hardware.cores import instance_type
from neuronbert.hardware.device_model import LATEST_RELEASE, known_release
from neuronbert.hardware.own_places import own_temporary_folder

INSTANCE = "NEURONBERT_EMULATE"
FAULTS = "NEURONBERT_EMULATE_FAULTS"
UNKNOWNS = "NEURONBERT_EMULATE_UNKNOWNS"
DIRECTORY = "NEURONBERT_EMULATE_DIR"
TIMED = "NEURONBERT_EMULATE_TIMED"  # an SDK release, or 1 for the latest
RECORDED = "NEURONBERT_EMULATE_RECORDED"
RECORD = "NEURONBERT_EMULATE_RECORD"
ALL_VARIABLES = (INSTANCE, FAULTS, UNKNOWNS, DIRECTORY, TIMED, RECORDED, RECORD)


@dataclass(frozen=True)
class EmulatorSettings:
    """One emulated machine. Processes that share ``directory`` share its cores."""

    instance: str
    directory: Path
    faults: Tuple[Fault, ...] = ()
    unknowns: Tuple[Tuple[str, str], ...] = ()  # what is shown other than by default (unknowns.py)
    release: Optional[str] = None  # the SDK whose speed is imitated; None: answers are computed, time is not imitated
    recorded: Optional[Path] = None  # logits that timed mode answers with
    record: Optional[Path] = None  # where to record them

    def __post_init__(self) -> None:
        instance_type(self.instance)
        if self.release is not None:
            known_release(self.release)
        if self.timed and self.recorded is None:
            raise UsageError(
                "timed mode answers with recorded logits, and was given none",
                hint=f"record them first ({RECORD}=FILE, untimed), then {RECORDED}=FILE",
            )

    @property
    def timed(self) -> bool:
        """Whether answers are recorded and take the hardware's time."""
        return self.release is not None

    def shown(self, unknown: str) -> str:
        """The name of the behaviour that is shown for an entry of unknowns.py."""
        return dict(self.unknowns).get(unknown, default_behaviour(unknown))

    def as_environment(self) -> Dict[str, str]:
        """The variables that make a child process emulate the same machine."""
        values = {
            INSTANCE: self.instance,
            DIRECTORY: str(self.directory),
            FAULTS: ",".join(str(fault) for fault in self.faults),
            UNKNOWNS: ",".join(f"{name}={behaviour}" for name, behaviour in self.unknowns),
            TIMED: self.release or "",
            RECORDED: str(self.recorded or ""),
            RECORD: str(self.record or ""),
        }
        return {name: value for name, value in values.items() if value}


def settings_from(environ: Mapping[str, str]) -> Optional[EmulatorSettings]:
    """What the environment asks for; None when it asks for nothing. UsageError says what is wrong."""
    instance = environ.get(INSTANCE, "").strip()
    if not instance:
        return None
    return EmulatorSettings(
        instance=instance,
        directory=_path(environ, DIRECTORY) or default_directory(),
        faults=parse_faults(environ.get(FAULTS, "")),
        unknowns=parse_unknowns(environ.get(UNKNOWNS, "")),
        release=_release(environ.get(TIMED, "")),
        recorded=_path(environ, RECORDED),
        record=_path(environ, RECORD),
    )


def default_directory() -> Path:
    """One per user: the cores of an emulated machine are shared by all processes of the same user."""
    return own_temporary_folder("neuronbert-twin")


def _release(value: str) -> Optional[str]:
    cleaned = value.strip()
    if cleaned in ("", "0"):
        return None
    return LATEST_RELEASE if cleaned == "1" else cleaned


def _path(environ: Mapping[str, str], name: str) -> Optional[Path]:
    return Path(environ[name]) if environ.get(name) else None
