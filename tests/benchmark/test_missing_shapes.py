"""Where the artifacts that a benchmark compiles on demand are kept."""

from types import SimpleNamespace

import pytest

from neuronbert.benchmark.missing_shapes import ShapeCompiler
from neuronbert.benchmark.points import CLOSED, LoadSpec, Setting
from neuronbert.errors import OutputError


def test_a_folder_that_somebody_else_could_fill_is_refused(echo_artifact, tmp_path, monkeypatch):
    """What lies in it is loaded without a signature, as our own."""
    monkeypatch.setenv("NEURONBERT_CACHE", str(tmp_path))
    instances = SimpleNamespace(name_of=lambda setting: "inf1.xlarge")
    compiler = ShapeCompiler(echo_artifact, instances, print)
    setting = Setting("echo-fp32", None, None, None, 1, 128, False, LoadSpec(CLOSED, 1.0))
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark").chmod(0o777)
    with pytest.raises(OutputError, match="benchmark may be written to by other users"):
        compiler._path(setting)
    (tmp_path / "benchmark").chmod(0o700)
    assert compiler._path(setting).parents[2] == tmp_path / "benchmark"
