"""An async credential in functions that are not async, each of which runs an event loop of its own.

A route names one of two credentials: the first is armed on the worker's loop when the
app is loaded, the second refreshes only when it is asked.
"""

import asyncio
import os
import threading

import azure.functions as func
from azure.communication.chat.aio import ChatThreadClient
from azure.communication.common import aio, parse_client_arguments
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient

ENDPOINT, KEY = parse_client_arguments(os.environ["COMMUNICATION_SERVICES_CONNECTION_STRING"])
USER = CommunicationUserIdentifier(os.environ["COMMUNICATION_SERVICES_USER_ID"])

app = func.FunctionApp()


async def fetch_token() -> str:
    async with CommunicationIdentityClient(ENDPOINT, KEY) as identity:
        return (await identity.get_token(USER, ["chat"])).token


credentials = {
    "proactive": aio.CommunicationTokenCredential(
        token_refresher=fetch_token, proactive_refresh=True
    ),
    "on-demand": aio.CommunicationTokenCredential(token_refresher=fetch_token),
}
six = threading.Barrier(6)


async def send(req: func.HttpRequest) -> str:
    credential = credentials[req.route_params["credential"]]
    policy = aio.get_authentication_policy(ENDPOINT, credential)
    thread_id = req.route_params["thread_id"]
    async with ChatThreadClient(
        ENDPOINT, credential, thread_id, per_retry_policies=policy
    ) as thread:
        return (await thread.send_message("Hello")).id


@app.route("six/{credential}/{thread_id}", methods=["POST"])
def send_from_thread(req: func.HttpRequest) -> str:
    six.wait(30)
    return asyncio.run(send(req))


@app.route("loop/{credential}/{thread_id}", methods=["POST"])
async def send_from_loop(req: func.HttpRequest) -> str:
    return await send(req)
