"""What is said of an optional library that is missing or broken, and which command is given for it."""

import configparser
import pickle
import shlex
import sys
import types
from pathlib import Path
from typing import Iterator

import pytest

from neuronbert.cli.doctor.facts import REQUIRED
from neuronbert.errors import BackendUnavailable, MissingLibrary
from neuronbert.hardware import libraries
from neuronbert.hardware.libraries import (
    BASE,
    LIBRARIES,
    PURPOSES,
    explained,
    extras_with,
    install_command,
    optional_imports,
    require_libraries,
)


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clone, no inf1, no emulator; the Python is the one on the path."""
    monkeypatch.setattr(libraries, "DEMO_IN_CLONE", Path("nowhere"))
    monkeypatch.setattr(libraries, "library_version", {"safetensors": "1.0"}.get)
    monkeypatch.setattr(libraries, "_python", lambda: "python")
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_missing_library_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    distribution, extra = LIBRARIES[name]
    for attempt in (lambda: require_libraries(name), lambda: imported(name)):
        with pytest.raises(MissingLibrary) as caught:
            attempt()
        assert caught.value.message == f"{distribution} is not installed: needed {PURPOSES[extra]}"
        assert caught.value.hint == install_command(extra)
        assert caught.value.exit_code == 1


def imported(name: str) -> None:
    with optional_imports():
        __import__(name)


def test_all_that_is_missing_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "nncf", "neuronbert_demo"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibrary) as caught:
        require_libraries("torch", "nncf", "click", "neuronbert_demo")
    assert caught.value.message.startswith("torch, nncf, neuronbert-demo are not installed: ")
    assert caught.value.hint is not None and '"neuronbert[compile,demo]"' in caught.value.hint


def test_a_module_without_a_spec_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # What transformers 4.6.0, which every tutorial of AWS's pins, leaves in sys.modules.
    bare = types.ModuleType("transformers")
    monkeypatch.setitem(sys.modules, "transformers", bare)
    assert bare.__spec__ is None
    require_libraries("transformers")


def test_of_several_extras_the_one_that_the_caller_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    @optional_imports("emulator", otherwise="another machine")
    def emulate() -> None:
        import torch  # noqa: F401

    with pytest.raises(MissingLibrary) as caught:
        emulate()
    assert caught.value.message == "torch is not installed: needed to emulate an inf1 instance"
    assert caught.value.hint == 'python -m pip install "neuronbert[emulator]", or another machine'


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'safetensors.torch'", name="safetensors.torch"),
        ImportError("cannot import name 'safe_open' from 'safetensors'", name="safetensors"),
        ImportError("libsafetensors.so: cannot open shared object file", name="safetensors._safetensors_rust"),
    ],
)
def test_a_library_that_is_there_and_broken_is_not_called_missing(error: ImportError) -> None:
    broken = explained(error)
    assert broken is not None
    assert broken.message == f"safetensors 1.0 is installed and cannot be used: {error}"
    assert broken.hint == 'python -m pip install --upgrade --force-reinstall "safetensors"'


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'something'", name="something"),
        ModuleNotFoundError("No module named 'richer'", name="richer"),
        ModuleNotFoundError("one that names nothing"),
        MissingLibrary("said already"),
    ],
)
def test_an_error_about_something_else_stays_as_it_is(error: ImportError) -> None:
    assert explained(error) is None
    with pytest.raises(ImportError) as caught, optional_imports():
        raise error
    assert caught.value is error


def test_it_is_an_error_of_ours_and_an_import_error_and_survives_another_process() -> None:
    error = MissingLibrary("torch is not installed", hint="python -m pip install torch")
    assert isinstance(error, BackendUnavailable) and isinstance(error, ImportError)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.hint) == (MissingLibrary, error.message, error.hint)


def test_the_command_fits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_command("compile") == 'python -m pip install "neuronbert[compile]"'
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf1.xlarge")
    assert install_command("compile") == 'python -m pip install "neuronbert[compile,emulator]"'
    assert install_command("top") == 'python -m pip install "neuronbert[top]"'
    monkeypatch.delenv("NEURONBERT_EMULATE")
    monkeypatch.setattr(libraries, "library_version", {"torch-neuron": "1.13.1.2.11.13.0"}.get)
    assert install_command("compile").startswith('python -m pip install "neuronbert[inf1]" --extra-index-url https')


def test_a_clone_brings_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "a clone" / "demo"
    folder.mkdir(parents=True)
    assert install_command("demo").startswith('python -m pip install "neuronbert[demo]", or for demo ')
    monkeypatch.setattr(libraries, "DEMO_IN_CLONE", folder)
    assert shlex.split(install_command("demo")) == ["python", "-m", "pip", "install", str(folder)]
    assert shlex.split(install_command("demo", "compile"))[-2:] == ["neuronbert[compile]", str(folder)]


def test_the_extras_of_distributions() -> None:
    assert list(extras_with(["onnx", "torch", "numpy", "openvino"])) == ["compile", "openvino"]


@pytest.fixture()
def real_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.undo()
    yield


def test_another_python_than_the_one_on_the_path_is_named_in_full(
    real_python: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripts = tmp_path / "my venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert shlex.split(install_command("top"))[0] == str(scripts / "python")
    monkeypatch.setenv("PATH", str(scripts))
    assert shlex.split(install_command("top"))[0] == "python"


def test_the_table_of_the_base_is_what_setup_cfg_requires() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    assert {line.partition(">=")[0] for line in required} == {library.distribution for library in BASE.values()}
    assert {f"{name}{bound}" for name, bound in REQUIRED.items()} == set(required)
