"""How records of the log look."""

import asyncio
import io
import json
import logging
import threading
from typing import Any, Dict, List

import pytest

from neuronbert.runner.events import Events
from neuronbert.server.logs import GatheringHandler, JsonLines, RequestDone, TextLines


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


def request_done(number: int, status: int = 200) -> RequestDone:
    return RequestDone(1.5, "POST", "/", status, 0.0123, f"r{number}", "local", "model", 1, None)


def gathering() -> GatheringHandler:
    handler = GatheringHandler()
    handler.setStream(io.StringIO())
    handler.lines = JsonLines()
    return handler


def written(handler: GatheringHandler) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in handler.stream.getvalue().splitlines()]


def test_lines_of_requests_wait_for_others_and_a_warning_comes_behind_them() -> None:
    handler = gathering()

    async def log_them() -> None:
        handler.gather_in(asyncio.get_running_loop())
        handler.emit_request(logging.INFO, request_done(0))
        handler.emit_request(logging.INFO, request_done(1))
        assert written(handler) == []
        handler.handle(logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING", "msg": "late"}))
        assert [line.get("request_id") for line in written(handler)] == ["r0", "r1", None]
        handler.emit_request(logging.INFO, request_done(2))
        await asyncio.sleep(0.2)
        assert written(handler)[3:] == [
            {
                "at": "1970-01-01T00:00:01.500Z",
                "level": "info",
                "logger": "neuronbert.server",
                "message": "POST /",
                "request_id": "r2",
                "client": "local",
                "model": "model",
                "rows": 1,
                "status": 200,
                "ms": 12.3,
                "error": None,
            }
        ]
        handler.emit_request(logging.WARNING, request_done(3, 503))
        assert [line["level"] for line in written(handler)[4:]] == ["warning"]

    asyncio.run(log_them())
    handler.emit_request(logging.INFO, request_done(4))  # the loop is closed
    assert written(handler)[-1]["request_id"] == "r4"


def test_no_line_is_lost_or_written_twice_while_threads_log() -> None:
    handler = gathering()
    count = 500

    def in_thread(name: str) -> None:
        for number in range(count):
            handler.handle(logging.makeLogRecord({"levelname": "INFO", "levelno": 20, "msg": f"{name}{number}"}))

    async def log_requests() -> None:
        handler.gather_in(asyncio.get_running_loop())
        for number in range(count):
            handler.emit_request(logging.INFO, request_done(number))
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)

    threads = [threading.Thread(target=in_thread, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    asyncio.run(log_requests())
    for thread in threads:
        thread.join()
    lines = written(handler)
    assert [line["request_id"] for line in lines if "request_id" in line] == [f"r{number}" for number in range(count)]
    for name in "ab":
        of_thread = [line["message"] for line in lines if line["message"].startswith(name)]
        assert of_thread == [f"{name}{number}" for number in range(count)]
    assert len(lines) == 3 * count
