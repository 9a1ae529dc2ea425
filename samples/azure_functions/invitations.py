"""An orchestration that creates a chat thread and invites people to it.

What it passes on is JSON that Durable Functions stores and replays, possibly under a later version
of this app. So participants travel as raw ids, which are texts, and become identifiers where they
are used.
"""

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
import azure.functions as func
from azure.communication.chat import ChatParticipant
from azure.communication.common import CommunicationIdentifierKind, identifier_from_raw_id

import clients
from answers import problem, read_json

invitations = df.Blueprint()


@invitations.route("threads", methods=["POST"])
@invitations.durable_client_input("client")
async def invite(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Start the orchestration; the answer says where to ask how it went."""
    match read_json(req):
        case {"topic": str(topic), "participants": [_, *_] as raw_ids} if all(
            isinstance(raw_id, str) for raw_id in raw_ids
        ):
            pass
        case _:
            return problem(
                400, 'The body must be {"topic": "<text>", "participants": ["<raw id>"]}.'
            )
    invitation = {"topic": topic, "participants": raw_ids}
    instance_id = await client.start_new("set_up_thread", client_input=invitation)
    response: func.HttpResponse = client.create_check_status_response(req, instance_id)
    return response


@invitations.orchestration_trigger("context")
def set_up_thread(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    """Create the thread, invite everybody, and return its id and who was refused."""
    invitation: Any = context.get_input()
    thread_id = yield context.call_activity(
        # An activity may run twice. The service creates one thread for the same key.
        "create_thread",
        {"topic": invitation["topic"], "key": context.instance_id},
    )
    invited = [
        context.call_activity("add_participant", {"threadId": thread_id, "rawId": raw_id})
        for raw_id in invitation["participants"]
    ]
    refused = yield context.task_all(invited)
    return {"threadId": thread_id, "refused": [raw_id for raw_id in refused if raw_id]}


@invitations.activity_trigger("thread")
async def create_thread(thread: Any) -> str:
    created = await clients.chat_client().create_chat_thread(
        thread["topic"], idempotency_token=thread["key"]
    )
    thread_id: str = created.chat_thread.id
    return thread_id


@invitations.activity_trigger("invitation")
async def add_participant(invitation: Any) -> str:
    """Return the raw id of a participant who was refused, and nothing for one who was added."""
    participant = identifier_from_raw_id(invitation["rawId"])
    match participant.kind:
        case CommunicationIdentifierKind.COMMUNICATION_USER:
            thread = clients.chat_thread(invitation["threadId"])
            refused = await thread.add_participants([ChatParticipant(identifier=participant)])
        case _:  # azure-communication-chat cannot add others, as of 1.3.0
            return participant.raw_id
    return participant.raw_id if refused else ""
