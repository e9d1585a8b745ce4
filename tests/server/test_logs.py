"""How records of the log look."""

import json
import logging
from typing import Any, Dict

import pytest

from neuronbert.runner.events import Events
from neuronbert.server.logs import JsonLines, TextLines


def record_of(caplog: pytest.LogCaptureFixture, event: str, **facts: Any) -> logging.LogRecord:
    with caplog.at_level(logging.INFO, "neuronbert.runner"):
        Events().happened(event, **facts)
    return caplog.records[-1]


@pytest.mark.parametrize(
    ("event", "facts", "message", "text"),
    [
        ("ready", {"worker": 0, "pid": 7}, "worker ready", "worker ready worker=0 pid=7"),
        ("batch_failed", {"worker": 1}, "worker batch failed", "worker batch failed worker=1"),
        ("drained", {"left": 3}, "runner: drained", "runner: drained left=3"),
        ("unable", {"worker": 0, "cause": "a\nb"}, "worker unable", "worker unable worker=0 cause=a\\nb"),
    ],
)
def test_an_event_is_a_message_with_its_facts(
    caplog: pytest.LogCaptureFixture, event: str, facts: Dict[str, Any], message: str, text: str
) -> None:
    record = record_of(caplog, event, **facts)
    document = json.loads(JsonLines().format(record))
    assert document["message"] == message and document["event"] == event
    assert {name: document[name] for name in facts} == facts
    assert isinstance(document["at"], str)  # the record's, not the event's number
    assert TextLines().format(record).endswith(f" {text}")
    # Whoever uses the library sees what it always saw.
    seen = json.loads(record.getMessage())
    assert seen["event"] == event and {name: seen[name] for name in facts} == facts
