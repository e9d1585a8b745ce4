"""The variables that a layout becomes, for the whole instance and for each worker."""

import json
from pathlib import Path

import pytest

from neuronbert.artifact.manifest import Artifact
from neuronbert.errors import ArtifactError, UsageError
from neuronbert.runner.core_environment import core_environment


def artifact(cores, mode, instance="inf1.xlarge", refused=()):
    recipe = {
        "instance_type": instance,
        "mode": mode,
        "pipeline": f"{cores} pipeline cores: because" if mode == "pipeline" else None,
        "refused_pipeline_cores": list(refused),
    }
    variant = {"name": f"neuron-b1-s128-p{cores}", "backend": "neuron", "pipeline_cores": cores, "recipe": recipe}
    return Artifact(Path("out"), {"variants": [{"name": "openvino-fp32", "backend": "openvino"}, variant]})


@pytest.mark.parametrize(
    ("made", "instance", "groups", "visible"),
    [
        (artifact(1, "data-parallel"), None, "1,1,1,1", "0-3"),
        (artifact(1, "data-parallel"), "inf1.6xlarge", ",".join("1" * 16), "0-15"),
        (artifact(4, "pipeline"), None, "4", "0-3"),
        (artifact(4, "pipeline"), "inf1.6xlarge", "4,4,4,4", "0-15"),
        (artifact(16, "pipeline", "inf1.6xlarge"), None, "16", "0-15"),
    ],
)
def test_the_whole_instance(made, instance, groups, visible):
    result = core_environment(made, instance_type=instance)
    assert result.variables == {"NEURONCORE_GROUP_SIZES": groups, "NEURON_RT_VISIBLE_CORES": visible}
    assert result.as_shell() == f"export NEURONCORE_GROUP_SIZES={groups}\nexport NEURON_RT_VISIBLE_CORES={visible}"


def test_one_worker():
    result = core_environment(artifact(4, "pipeline"), instance_type="inf1.6xlarge", worker=2)
    assert result.variables["NEURONCORE_GROUP_SIZES"] == "4"
    assert result.variables["NEURON_RT_VISIBLE_CORES"] == "8-11"
    assert json.loads(json.dumps(result.as_dict()))["worker"] == 2


def test_how_the_number_of_cores_came_about_is_told():
    lines = core_environment(artifact(8, "pipeline", "inf1.6xlarge", refused=[12])).explanation
    assert lines[0] == "8 pipeline cores: because"
    assert lines[1] == "the compiler refused 12 cores and took 8"
    assert "2 workers over 8 cores each" in lines[2] and "keep 8 requests in flight" in lines[2]


def test_what_cannot_be():
    with pytest.raises(UsageError, match="no worker 4"):
        core_environment(artifact(1, "data-parallel"), worker=4)
    with pytest.raises(UsageError, match="16 cores"):
        core_environment(artifact(16, "pipeline", "inf1.6xlarge"), instance_type="inf1.xlarge")
    cpu = Artifact(Path("out"), {"variants": [{"name": "openvino-fp32", "backend": "openvino"}]})
    with pytest.raises(ArtifactError, match="no variant for NeuronCores .it has openvino-fp32"):
        core_environment(cpu)
