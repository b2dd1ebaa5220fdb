"""`python -m deployments.automations`: what a server does when a run's heartbeats stop, or a run fails, crashes or is late.

Applied by name, so that applying again changes nothing but what is new here; one that an operator has paused stays paused.
Those that tell somebody exist where there is somebody to tell:

- SWATH_ALERT_WEBHOOK: an address that gets a JSON object by POST; it is kept in the webhook block `swath-alerts`.
- SWATH_ALERT_BLOCK: `TYPE/NAME` of a block made before, a webhook or a notification (`slack-webhook/ops`, `sendgrid-email/ops`).
- neither: a block of any such type that is named `swath-alerts`, if the server has one.
"""

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.automations import AutomationCore, CallWebhook, ChangeFlowRunState, EventTrigger, Posture, SendNotification
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument, StateType
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from deployments.main import run
from deployments.server import check_server, server_address
from lib.errors import UsageError

BLOCK = "swath-alerts"
_PREFIX = "swath: "
_EACH_RUN = {"prefect.resource.id"}
# Other people's runs on the same server have heartbeats of their own pace, and alerts of their own.
FLOWS = ("transform-raster", "filter-vector", "run-batch", "verify-output", "profile-memory", "clean-leftovers", "demo")
_RUNS: Any = {"prefect.resource.id": "prefect.flow-run.*"}
_OURS: Any = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
# Prefect takes no frequency below 30 s. Not 90 s of silence: a server that was away for a minute, and 27 s to start, called a
# living run dead as soon as it was back, before the heartbeats that had waited for it came.
SILENT_SECONDS = 120
LATE_SECONDS = 600
_WHAT = "{{ flow.name }} ({{ flow_run.name }}) is {{ flow_run.state.name }}"
_BODY = f"{_WHAT}: {{{{ flow_run.state.message }}}}\n{{{{ flow_run | ui_url }}}}"
_PAYLOAD = """{
  "text": {{ [flow.name, " (", flow_run.name, "): ", flow_run.state.name, ": ", flow_run.state.message or ""] | join | tojson }},
  "automation": {{ automation.name | tojson }},
  "flow": {{ flow.name | tojson }},
  "run": {{ flow_run.name | tojson }},
  "run_id": {{ flow_run.id | string | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "state_type": {{ flow_run.state.type.value | tojson }},
  "message": {{ (flow_run.state.message or "") | tojson }},
  "url": {{ flow_run | ui_url | tojson }}
}"""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a run is called dead, and when a run that has not begun is told of: seconds without a sign."""

    silent_seconds: float = SILENT_SECONDS
    late_seconds: float = LATE_SECONDS


def apply(timing: Timing = Timing()) -> list[str]:
    """Bring a server's automations of swath to what is written here; their names.

    Raises:
        UsageError: SWATH_ALERT_WEBHOOK is no address, or SWATH_ALERT_BLOCK names no block, or one that can tell nobody.
    """
    with get_client(sync_client=True) as client:
        block = _alert_block(client)
        wanted = [_silent(timing), *(_alerts(block, timing) if block else [])]
        there = {each.name: each for each in client.read_automations() if each.name.startswith(_PREFIX)}
        for each in wanted:
            if found := there.pop(each.name, None):
                each.enabled = found.enabled
                if _differ(found, each):
                    client.update_automation(found.id, each)
            else:
                client.create_automation(each)
        for gone in there.values():
            client.delete_automation(gone.id)
    return [each.name for each in wanted]


def _differ(found: AutomationCore, wanted: AutomationCore) -> bool:
    alike = set(AutomationCore.model_fields) - {"owner_resource", "id"}
    return found.model_dump(include=alike, mode="json") != wanted.model_dump(include=alike, mode="json")


def _silent(timing: Timing) -> AutomationCore:
    """A run that has sent a heartbeat and then no sign of life: its machine, or its process, is gone."""
    return AutomationCore(
        name=f"{_PREFIX}crash runs whose heartbeats stop",
        description=f"No sign of a run for {timing.silent_seconds:.0f} s after a heartbeat: its process or its host is gone.",
        trigger=_nothing_since("heartbeat", timing.silent_seconds),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {timing.silent_seconds:.0f} s: the run's process or its host is gone; run it again",
            )
        ],
    )


def _nothing_since(event: str, seconds: float) -> EventTrigger:
    """No event of a run for that long after this one."""
    return EventTrigger(
        after={f"prefect.flow-run.{event}"},
        expect={"prefect.flow-run.*"},
        match=_RUNS,
        match_related=_OURS,
        for_each=_EACH_RUN,
        posture=Posture.Proactive,
        within=timedelta(seconds=seconds),
    )


def _alerts(block: BlockDocument, timing: Timing) -> list[AutomationCore]:
    """What tells somebody. By the state's type: a run of ours that fails has its error's name as the state's name."""
    action = _action(block)
    ended = [
        AutomationCore(
            name=f"{_PREFIX}tell of {kind.value.lower()} runs",
            description=f"Calls block {block.name} for each run that ends {kind.value.capitalize()}, whatever the state's name.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.*"},
                match=_RUNS | {"prefect.state-type": kind.value},
                match_related=_OURS,
                for_each=_EACH_RUN,
                posture=Posture.Reactive,
            ),
            actions=[action],
        )
        for kind in (StateType.FAILED, StateType.CRASHED)
    ]
    late = AutomationCore(
        name=f"{_PREFIX}tell of late runs",
        description=f"Calls block {block.name} for each run that is Late and has not begun {timing.late_seconds:.0f} s on.",
        trigger=_nothing_since("Late", timing.late_seconds),
        actions=[action],
    )
    return [*ended, late]


def _action(block: BlockDocument) -> CallWebhook | SendNotification:
    if _slug(block) == "webhook":
        return CallWebhook(block_document_id=block.id, payload=_PAYLOAD)
    return SendNotification(block_document_id=block.id, subject=f"swath: {_WHAT}", body=_BODY)


def webhook_address() -> str:
    """What SWATH_ALERT_WEBHOOK says; empty where it says nothing.

    Raises:
        UsageError: it is no address of the web; it may have a password in it, and is not repeated.
    """
    address = os.environ.get("SWATH_ALERT_WEBHOOK", "").strip()
    if address and not address.startswith(("http://", "https://")):
        raise UsageError("SWATH_ALERT_WEBHOOK is no web address", hint="write https://HOST/PATH, or unset it")
    return address


def _alert_block(client: SyncPrefectClient) -> BlockDocument | None:
    """The block that tells somebody, made or brought up to date where an address is given; None where nobody is to be told."""
    if address := webhook_address():
        headers = SecretDict({"Content-Type": "application/json"})
        Webhook(url=SecretStr(address), headers=headers).save(BLOCK, overwrite=True)
        return client.read_block_document_by_name(BLOCK, "webhook")
    if named := os.environ.get("SWATH_ALERT_BLOCK", "").strip():
        kind, _, name = named.partition("/")
        try:
            block = client.read_block_document_by_name(name, kind)
        except ObjectNotFound as error:
            raise UsageError(
                f"SWATH_ALERT_BLOCK={named}: the server has no such block",
                hint="make it in the page under Blocks, and write TYPE/NAME as `prefect block ls` shows them",
            ) from error
        if not _tells(block):
            raise UsageError(
                f"SWATH_ALERT_BLOCK={named} can tell nobody", hint="name a webhook block or a notification block"
            )
        return block
    return next((each for each in client.read_block_documents() if each.name == BLOCK and _tells(each)), None)


def _slug(block: BlockDocument) -> str:
    return block.block_type.slug if block.block_type else ""


def _tells(block: BlockDocument) -> bool:
    able = block.block_schema.capabilities if block.block_schema else []
    return _slug(block) == "webhook" or "notify" in able


def main() -> None:
    """Apply the automations to the server in PREFECT_API_URL, and say which."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    api = server_address()
    check_server(api)
    with temporary_settings({PREFECT_API_URL: api}):
        for name in apply():
            sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    run(main)
