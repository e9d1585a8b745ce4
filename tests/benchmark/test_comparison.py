"""Two reports: what is slower beyond the noise, and what may not be compared."""

import pytest
from made_reports import ENVIRONMENT, document, point

from neuronbert.benchmark.comparison import compare_reports
from neuronbert.errors import UsageError


def test_comparing_finds_what_is_slower_and_not_what_is_noise():
    before, again, worse = document(seed=1), document(seed=2), document(seed=3, slowdown=1.3)
    assert {one.verdict for one in compare_reports(before, again)} <= {"same", "faster", "slower"}
    assert sum(one.verdict == "slower" for one in compare_reports(before, again)) <= 2
    verdicts = compare_reports(before, worse)
    assert len(verdicts) == 50 and all(one.verdict == "slower" for one in verdicts)


def test_unlike_machines_and_artifacts_are_not_compared():
    before = document()
    other = {**before, "environment": {**ENVIRONMENT, "usable_cpus": 64}, "artifact": {"fingerprint": "def"}}
    with pytest.raises(UsageError, match="artifact.fingerprint: 'abc' and 'def'; environment.usable_cpus: 2 and 64"):
        compare_reports(before, other)
    gpu = {"name": "NVIDIA L4", "compute_capability": "8.9", "memory_bytes": 1}
    with pytest.raises(UsageError, match="environment.gpus: None and .*NVIDIA L4"):
        compare_reports(before, {**before, "environment": {**ENVIRONMENT, "gpus": [gpu]}})
    # A report from before GPUs were recorded, and one of a machine without.
    assert compare_reports(before, {**before, "environment": {**ENVIRONMENT, "gpus": []}})
    with pytest.raises(UsageError, match="no point in common"):
        compare_reports(before, {**before, "points": [point(12, 1)]})
