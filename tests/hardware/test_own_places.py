"""Nothing that somebody else could have planted under a name he can guess is used, followed or waited for."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from neuronbert.backends.cache import cache_folder
from neuronbert.emulator.emulator_settings import default_directory
from neuronbert.emulator.faults import EXECUTE, Fault, FaultPlan
from neuronbert.emulator.nrt_log import NrtLog
from neuronbert.emulator.reservation import CoreRegistry
from neuronbert.errors import NeuronBertError, OutputError
from neuronbert.hardware import own_places
from neuronbert.hardware.own_places import locked, open_own, own_folder, own_temporary_folder
from neuronbert.runner import publishing

FOREIGN = 12345


def use_registry() -> None:
    registry = CoreRegistry(default_directory(), 4)
    registry.reserve([0])
    registry.release()


def publish() -> None:
    own_folder(publishing.runtime_folder())


# Every folder of the package with a name that can be guessed: what makes it, and where it is.
PLACES = {
    "cores of the emulator": (use_registry, default_directory),
    "its faults": (
        lambda: FaultPlan((Fault("hang", 1, True),), default_directory()).due(EXECUTE),
        default_directory,
    ),
    "its system log": (lambda: NrtLog(default_directory() / "syslog").driver("line"), default_directory),
    "runners for top": (publish, publishing.runtime_folder),
    "compile cache": (
        lambda: cache_folder("neuron"),
        lambda: Path(os.environ["XDG_CACHE_HOME"], "neuronbert", "neuron"),
    ),
}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    for name in ("XDG_RUNTIME_DIR", "NEURONBERT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def plant(kind: str, folder: Path, victim: Path, monkeypatch) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    victim.mkdir(mode=0o700)
    if kind == "link":
        folder.symlink_to(victim)
    elif kind == "dangling link":
        folder.symlink_to(victim / "new")
    elif kind == "file":
        folder.write_text("")
    else:
        folder.mkdir(mode=0o700)
        if kind == "open to all":
            folder.chmod(0o777)
        else:
            monkeypatch.setattr(own_places, "_is_ours", lambda status, folder: False)


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "open to all", "foreign"])
@pytest.mark.parametrize("place", PLACES)
def test_a_planted_folder_is_refused_and_left_alone(tmp_path, monkeypatch, place, kind):
    use, folder = PLACES[place]
    plant(kind, folder(), tmp_path / "victim", monkeypatch)
    with pytest.raises(NeuronBertError, match="symbolic link|not a folder|belongs to user|may be written to by other"):
        use()
    assert os.listdir(tmp_path / "victim") == []
    assert not folder().is_dir() or list(folder().iterdir()) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_that_is_not_there_is_made_for_this_user_alone(place):
    use, folder = PLACES[place]
    use()
    use()
    assert stat.S_IMODE(folder().stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_s_folder_and_file_are_told_by_their_owner(tmp_path):
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "file").touch()
    for name in ("folder", "file"):
        os.chown(tmp_path / name, FOREIGN, FOREIGN)
    with pytest.raises(OutputError, match=f"belongs to user {FOREIGN}"):
        own_folder(tmp_path / "folder")
    with pytest.raises(OutputError, match=f"belongs to user {FOREIGN}"):
        open_own(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_where_a_file_system_gives_everything_to_one_user_that_one_is_ours(tmp_path, monkeypatch):
    """As NFS with root_squash does."""
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", FOREIGN, FOREIGN)

    def squashed(dir):
        probe = open(os.path.join(dir, "probe"), "w+b")
        os.chown(probe.fileno(), FOREIGN, FOREIGN)
        return probe

    monkeypatch.setattr("tempfile.TemporaryFile", squashed)
    descriptor = open_own(tmp_path / "file")
    try:
        assert os.path.samestat(os.fstat(descriptor), os.stat(tmp_path / "file"))
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo", "device"])
def test_a_planted_file_is_neither_followed_nor_changed_nor_waited_for(tmp_path, kind):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("precious")
    {
        "link": lambda: path.symlink_to(victim),
        "dangling link": lambda: path.symlink_to(tmp_path / "new"),
        "hard link": lambda: os.link(victim, path),
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/null"),
    }[kind]()
    for flags in (os.O_RDWR | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT, os.O_RDONLY):
        with pytest.raises(OutputError, match="symbolic link|not a regular file|hard link") as caught:
            open_own(path, flags)
        assert str(path) in str(caught.value.hint)
    assert victim.read_text() == "precious" and not (tmp_path / "new").exists()


def test_own_files_are_opened_as_asked(tmp_path):
    path = tmp_path / "file"
    os.close(open_own(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("old")
    with open(open_own(path, os.O_WRONLY | os.O_APPEND), "a") as file:
        file.write("+")
    assert path.read_text() == "old+"
    os.close(open_own(path, os.O_WRONLY | os.O_TRUNC))
    assert path.read_text() == ""
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "none", os.O_RDONLY)


def test_a_name_without_a_folder_is_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.close(open_own("file"))
    assert own_folder(Path("folder")) == Path("folder")


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path):
    code = (
        "import sys, time; from neuronbert.hardware.own_places import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        got = threading.Event()

        def take():
            with locked(tmp_path / "lock"):
                got.set()

        waiting = threading.Thread(target=take)
        waiting.start()
        assert not got.wait(0.2)
        child.kill()
        assert got.wait(60)
        waiting.join()


def test_the_folder_of_the_emulator_is_named_by_number_not_by_a_variable(monkeypatch):
    monkeypatch.setenv("LOGNAME", "../../somewhere")
    assert default_directory() == own_temporary_folder("neuronbert-twin")
    assert default_directory().name == f"neuronbert-twin-{os.getuid()}"
