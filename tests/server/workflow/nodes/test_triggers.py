"""trigger-webhook, trigger-schedule, trigger-plugin."""

from __future__ import annotations

import pytest

from server.workflow.node import NodeError
from server.workflow.nodes.triggers import Schedule
from server.workflow.schedules import read_cron
from tests.server.workflow.fakes import FakeRun, execute, node

WEBHOOK = {
    "content_type": "application/json",
    "headers": [{"name": "X-Id"}],
    "params": [{"name": "page", "type": "number", "required": True}],
    "body": [{"name": "text", "type": "string"}],
}


async def test_a_webhook_gives_out_its_fields() -> None:
    """And the request as it came."""
    request = {"headers": {"x-id": "7"}, "query_params": {"page": "2"}, "body": {"text": "a"}}
    run = FakeRun({"w": {"webhook_data": request, "sys.user_id": "u"}})
    result = await execute(node("trigger-webhook", WEBHOOK, id="w"), run)
    assert result.outputs == {"X_Id": "7", "page": 2, "text": "a", "_webhook_raw": request}


async def test_a_webhook_can_be_run_by_hand() -> None:
    """With its fields as inputs."""
    run = FakeRun({"w": {"page": "2", "text": "a", "sys.user_id": "u"}})
    outputs = (await execute(node("trigger-webhook", WEBHOOK, id="w"), run)).outputs
    assert outputs["_webhook_raw"]["body"] == {"page": "2", "text": "a"}
    assert (outputs["page"], outputs["text"], outputs["X_Id"]) == (2, "a", None)


async def test_a_request_that_lacks_a_field() -> None:
    """It is named."""
    with pytest.raises(NodeError, match="Required parameter missing: page"):
        await execute(node("trigger-webhook", WEBHOOK, id="w"), FakeRun())


async def test_a_schedule() -> None:
    """It is read once; one that an export has emptied has none."""
    data = {"mode": "cron", "cron_expression": "0 9 * * *", "timezone": "UTC"}
    tested = node("trigger-schedule", data, id="t")
    assert isinstance(tested, Schedule)
    assert tested.schedule == read_cron("0 9 * * *")
    assert (await execute(tested, FakeRun({"t": {"a": 1}}))).outputs == {"a": 1}
    empty = node("trigger-schedule", {"mode": "visual"}, id="t")
    assert isinstance(empty, Schedule)
    assert empty.schedule is None
    assert (await execute(empty, FakeRun())).outputs == {}


async def test_a_plugin_is_a_missing_binding() -> None:
    """Named, unless whoever runs the app gives the event."""
    tested = node("trigger-plugin", {"plugin_id": "a/github", "event_name": "push"}, id="p")
    with pytest.raises(NodeError, match="'a/github:push' is not bound") as error:
        await execute(tested, FakeRun({"p": {"sys.user_id": "u"}}))
    assert error.value.type == "MissingBinding"
    assert (await execute(tested, FakeRun({"p": {"ref": "main"}}))).outputs == {"ref": "main"}
