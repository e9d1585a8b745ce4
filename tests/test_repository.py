"""What a clone promises: its names, its documented commands, its versions, its licences."""

import ast
import configparser
import os
import re
import runpy
import shlex
import subprocess
import sys
import types
import zlib
from pathlib import Path
from typing import Dict, List, Set

import click
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import neuronbert
from neuronbert import errors
from neuronbert.cli import main as cli
from neuronbert.hardware.libraries import LIBRARIES, PURPOSES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

PUBLIC_NAMES = {
    "__version__",
    "AnswerOptions",
    "Engine",
    "NeuronBertForFeatureExtraction",
    "NeuronBertForQuestionAnswering",
    "NeuronBertForSequenceClassification",
    "NeuronBertForTokenClassification",
    "Runner",
    "SentenceEncoder",
    "WindowOptions",
    "compile_checkpoint",
    "cores",
    "emulator",
    "errors",
    "evaluate_artifact",
    "load_artifact",
    "load_checkpoint",
    "make_cascade",
    "pipeline",
    "plan",
    "run_job",
    "serve",
    "benchmark_artifact",
}
# The bounds above which the inf1 extra may go no further.
CEILINGS = {"numpy": ["<="], "protobuf": ["<"]}
BROKEN_LATER = {"apache-tvm": ["<"], "apache-tvm-ffi": ["<"]}  # setup.cfg says how
# What a distribution is imported as.
IMPORT_NAMES = {library.distribution: name for name, library in LIBRARIES.items()}


def read_setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def requirements_of(text: str) -> List[Requirement]:
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def base_requirements() -> List[Requirement]:
    return requirements_of(read_setup()["options"]["install_requires"])


def extra_requirements() -> Dict[str, List[Requirement]]:
    extras = read_setup()["options.extras_require"]
    return {name: [one for one in requirements_of(text) if one.name != "neuronbert"] for name, text in extras.items()}


def pinned_versions(stack: str) -> Dict[str, Version]:
    pins = requirements_of((ROOT / "tools" / f"constraints-{stack}.txt").read_text(encoding="utf-8"))
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {pin.name.lower().replace("-", "_"): Version(str(pin.specifier)[2:]) for pin in here}


def code_blocks(language: str) -> List[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def documented_commands() -> List[List[str]]:
    """The arguments of every `neuronbert ...` line in the README's console blocks."""
    text = "".join(code_blocks("console")).replace("\\\n", " ")
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ neuronbert ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def third_party_imports() -> Set[str]:
    """Top-level modules that the package imports anywhere, its own and the standard library's left out."""
    found = set()
    for path in (ROOT / "neuronbert").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    if sys.version_info < (3, 10):
        pytest.skip("this Python cannot list its standard library")
    return found - set(sys.stdlib_module_names) - {"neuronbert"}


def test_no_two_test_modules_of_a_run_have_one_name() -> None:
    """pytest imports a module by its name, below the topmost folder that is a package."""
    names: List[str] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        packages = [folder for folder in path.parents if (folder / "__init__.py").exists()]
        names.append(str(path.relative_to((packages or [path])[-1].parent)))
    assert sorted(names) == sorted(set(names))


def test_the_public_names_are_these() -> None:
    assert set(neuronbert.__all__) == PUBLIC_NAMES


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES - {"__version__"}))
def test_every_public_name_is_there_and_described(name: str) -> None:
    assert (getattr(neuronbert, name).__doc__ or "").strip()
    assert name in dir(neuronbert)


def test_the_public_modules_can_be_imported_by_their_names() -> None:
    code = (
        "import sys, neuronbert; assert 'neuronbert.hardware' not in sys.modules; "
        "import neuronbert.cores, neuronbert.emulator, neuronbert.errors; "
        "from neuronbert.cores import pipeline_cores; assert pipeline_cores is neuronbert.cores.pipeline_cores; "
        "assert neuronbert.cores.pipeline_cores(85_054_464) == 16; "
        "assert sys.modules['neuronbert.cores'] is neuronbert.cores is sys.modules['neuronbert.hardware.cores']; "
        "from neuronbert.cores import *; CoreLayout"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_beside_a_clone_its_folder_is_not_taken_for_the_package(tmp_path: Path) -> None:
    (tmp_path / "neuronbert").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (["-c", "import neuronbert; neuronbert.pipeline"], ["-m", "neuronbert", "--version"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_no_message_leaves_the_plural_to_its_reader() -> None:
    # The emulator says it in the words of the runtime that it stands in for.
    paths = [path for path in (ROOT / "neuronbert").rglob("*.py") if path.name != "reservation.py"]
    assert [path for path in paths if re.search(r"\w\(s\)[ \";:.,]", path.read_text(encoding="utf-8"))] == []
    assert (errors.counted(1, "point"), errors.counted(0, "point"), errors.counted(1000, "point")) == (
        "1 point", "0 points", "1,000 points"
    )  # fmt: skip


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compile_chekpoint'"):
        neuronbert.compile_chekpoint  # noqa: B018


@pytest.mark.parametrize("verb", sorted(cli.cli.commands))
def test_every_verb_has_json_and_every_option_has_help(verb: str) -> None:
    command = cli.cli.commands[verb]
    assert command.help
    assert "--json" in {spelling for option in command.params for spelling in option.opts}
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_the_list_of_verbs_says_each_in_one_line_in_the_order_of_use() -> None:
    context = click.Context(cli.cli, info_name="neuronbert", terminal_width=80, **cli.CONTEXT_SETTINGS)
    lines = cli.cli.get_help(context).partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == [str(verb.name) for verb in cli.VERBS]
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_the_readme_shows_and_tabulates_every_verb() -> None:
    verbs = set(cli.cli.commands)
    assert {arguments[0] for arguments in documented_commands()} == verbs
    assert set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)) == verbs


@pytest.mark.parametrize("arguments", documented_commands(), ids=" ".join)
def test_every_documented_command_parses(arguments: List[str]) -> None:
    verb, *rest = arguments
    context = cli.cli.commands[verb].make_context(
        verb, rest, **cli.CONTEXT_SETTINGS
    )  # click.UsageError for an option that does not exist
    assert (context.info_name, context.args) == (verb, [])


def migration_calls() -> List[str]:
    """The code of the last column of the migration table."""
    section = README.split("## Coming from elsewhere\n")[1].split("\n## ")[0]
    cells = [line.split(" | ")[-1] for line in section.splitlines() if line.startswith("| ")][1:]
    return [call for cell in cells for call in re.findall(r"`([^`]+)`", cell)]


def test_our_side_of_the_migration_table_exists() -> None:
    calls = migration_calls()
    commands = [shlex.split(call)[1:] for call in calls if call.startswith("neuronbert ")]
    names = [name for call in calls for name in re.findall(r"^neuronbert\.(\w+)", call)]
    assert len(commands) >= 4 and len(names) >= 4
    for verb, *rest in commands:
        cli.cli.commands[verb].make_context(verb, rest, **cli.CONTEXT_SETTINGS)
    assert set(names) <= set(neuronbert.__all__)


def test_quickstart_asks_the_question_of_the_readme() -> None:
    script = (ROOT / "tools" / "quickstart").read_text(encoding="utf-8")
    question, context = re.findall(r'^(?:QUESTION|CONTEXT)="(.*)"$', script, flags=re.MULTILINE)
    assert f'--question "{question}"' in README
    assert f'--context "{context}"' in README


def test_the_readme_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_continuous_integration_runs_the_readmes_commands() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("tools/quickstart", "tools/test"):
        assert command in README.split("## On the command line")[0]
        assert re.search(rf"^{command}$", ci, flags=re.MULTILINE)


def test_only_lower_bounds_are_declared() -> None:
    declared = [*base_requirements(), *(one for extra in extra_requirements().values() for one in extra)]
    inf1 = extra_requirements()["inf1"]
    for requirement in declared:
        # What neuron-cc brings is years old, and so is what it runs with.
        upper = (CEILINGS if requirement in inf1 else BROKEN_LATER).get(requirement.name, [])
        assert sorted(bound.operator for bound in requirement.specifier) == [*upper, ">="], requirement


def test_the_inf1_stack_is_what_was_locked_on_an_inf1_instance() -> None:
    # neuron_env.yml of aws-samples/sample-YOLOv8-neuron, with torch-neuron 1.13.1.2.11.13.0 and neuron-cc 1.24.0.0.
    locked = {"numpy": "1.22.2", "protobuf": "3.20.1", "tensorflow": "1.15.5.post1", "torch": "1.13.1"}
    pins = pinned_versions("inf1")
    assert {name: pins[name] for name in locked} == {name: Version(version) for name, version in locked.items()}
    (numpy,) = [one for one in extra_requirements()["inf1"] if one.name == "numpy"]
    # "Supported Numpy Versions" in release-notes/index.rst of aws-neuron-sdk v2.20.2; 1.24 has no np.object.
    allowed = ("1.21.5", "1.21.6", "1.22.2", "1.22.3", "1.24.4")
    assert [version for version in allowed if numpy.specifier.contains(version)] == ["1.21.6", "1.22.2"]


@pytest.mark.parametrize("extra", sorted(extra_requirements()))
def test_the_tested_versions_satisfy_the_bounds(extra: str) -> None:
    pins = pinned_versions("inf1" if extra in ("inf1", "dev-inf1") else "current")
    for requirement in [*base_requirements(), *extra_requirements()[extra]]:
        pin = pins[requirement.name.lower().replace("-", "_")]
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"


def test_every_import_of_the_package_is_declared() -> None:
    declared = [*base_requirements(), *(one for extra in extra_requirements().values() for one in extra)]
    names = {IMPORT_NAMES.get(requirement.name, requirement.name) for requirement in declared}
    assert third_party_imports() - names == set()


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_every_optional_library_is_in_its_extra(name: str) -> None:
    library = LIBRARIES[name]
    assert library.extra in PURPOSES
    assert library.distribution in {requirement.name for requirement in extra_requirements()[library.extra]}


def test_the_base_installs_nothing_that_is_not_imported() -> None:
    assert {requirement.name for requirement in base_requirements()} - third_party_imports() == set()


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d\S*)", changelog, flags=re.MULTILINE)
    assert versions[0] == neuronbert.__version__
    assert versions == sorted(versions, key=Version, reverse=True)


def test_the_package_carries_its_data() -> None:
    package = ROOT / "neuronbert"
    patterns = read_setup()["options.package_data"]["neuronbert"].split()
    files = {str(path.relative_to(package)) for pattern in patterns for path in package.glob(pattern)}
    samples = {f"tasks/samples/{name}.json" for name in ("gate", "calibration")}
    assert {"py.typed", *samples} <= files


def test_an_index_page_has_no_links_to_files(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: Dict[str, str] = {}
    setuptools = types.ModuleType("setuptools")
    setuptools.setup = arguments.update  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(ROOT / "setup.py"))
    page = arguments["long_description"]
    links = re.findall(r"\]\(([^)]*)\)", README)
    assert [link for link in links if not link.startswith("http")]
    assert re.findall(r"\]\(([^)]*)\)", page) == [link for link in links if link.startswith("http")]
    assert [text for text in re.findall(r"\[([^\]]*)\]\(", README) if text not in page] == []


def test_the_wheel_is_below_2_mb() -> None:
    patterns = ["*.py", *read_setup()["options.package_data"]["neuronbert"].split()]
    files = {path for pattern in patterns for path in (ROOT / "neuronbert").rglob(pattern) if path.is_file()}
    assert len(files) > 100 and sum(len(zlib.compress(path.read_bytes())) for path in files) < 2_000_000


def test_the_demo_is_a_package_beside_this_one() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "examples" / "demo-checkpoint" / "setup.cfg")
    (requirement,) = extra_requirements()["demo"]
    assert requirement.name == setup["metadata"]["name"]
    assert requirement.specifier.contains(setup["metadata"]["version"])
    assert pinned_versions("current")["neuronbert_demo"] == Version(setup["metadata"]["version"])
    licences = [path.read_bytes() for path in (ROOT / "LICENSE", ROOT / "examples" / "demo-checkpoint" / "LICENSE")]
    assert licences[0] == licences[1]


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert read_setup()["metadata"]["license"] == "Apache-2.0"
