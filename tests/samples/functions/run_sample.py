"""Load the Azure Functions sample in the worker library that Azure runs, and call its functions.

::

    python tests/samples/functions/run_sample.py

The service behind it is the stand-in of ``samples/local_service.py``, in this process; its tokens
live for six seconds. The worker runs in a process of its own, with the app settings as environment
variables, and sends messages until the tokens have rolled over several times. At the end stands how
many tokens that took, and that no request was refused. It needs Python 3.13.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

SAMPLES = Path(__file__).parents[3] / "samples"
STARTED = time.time()


def say(text: str) -> None:
    print(f"{time.time() - float(os.environ.get('STARTED', STARTED)):4.1f} s  {text}", flush=True)


def serve() -> int:
    """Run the service, and the worker in another process; return that one's exit code."""
    sys.path.insert(0, str(SAMPLES))
    from azure.communication.chat import ChatClient
    from azure.communication.common import CommunicationTokenCredential
    from azure.communication.identity import CommunicationIdentityClient

    from local_service import LocalService

    with LocalService(token_lifetime=6) as service:
        say("Started a stand-in for the service. Its tokens live for 6 seconds.")
        options = service.client_options()
        identity = CommunicationIdentityClient.from_connection_string(
            service.connection_string, **options
        )
        user, token = identity.create_user_and_token(["chat"])
        credential = CommunicationTokenCredential(token.token)
        # For type checkers, Any: the client's annotations are not right.
        chat: Any = ChatClient(service.endpoint, cast("Any", credential), **options)
        with chat:
            thread_id = chat.create_chat_thread("A thread").chat_thread.id
        say("Created a user for the app, and a chat thread.")
        service.issued.clear()
        settings = {
            "COMMUNICATION_SERVICES_CONNECTION_STRING": service.connection_string,
            "COMMUNICATION_SERVICES_USER_ID": user.raw_id,
            # What a process trusts: read by OpenSSL, for aiohttp, and by requests.
            "SSL_CERT_FILE": service.ca_path,
            "REQUESTS_CA_BUNDLE": service.ca_path,
            "STARTED": str(STARTED),
        }
        command = [sys.executable, __file__, thread_id]
        code = subprocess.run(command, env={**os.environ, **settings}, check=False).returncode
        refused = service.statuses[401]
        say(
            f"The app's two credentials needed {service.issued[user.raw_id]} tokens. "
            f"Requests answered with 401: {refused}."
        )
        return code or min(refused, 1)


def work(thread_id: str) -> int:
    """Load the sample and call its functions; return 0 if all of them did what they should."""
    from durable_driver import DurableExtension
    from functions_host import FunctionsHost

    began = time.perf_counter()
    with FunctionsHost(SAMPLES / "azure_functions") as host:
        milliseconds = 1000 * (time.perf_counter() - began)
        say(f"The worker loaded {len(host.functions)} functions in {milliseconds:.0f} ms.")

        issued = host.request("POST", "/api/token", {"newUser": True})
        say(f"POST /api/token issued a token for a new user: {issued.status}.")

        user = {"id": issued.json()["rawId"]}
        event = {
            "id": "1",
            "topic": "",
            "subject": "",
            "eventType": "Microsoft.Communication.IncomingCall",
            "eventTime": "2026-03-01T12:00:00.1234567Z",
            "dataVersion": "1.0",
            "data": {
                "from": {"rawId": "4:+14255550123", "phoneNumber": {"value": "+14255550123"}},
                "to": {"rawId": user["id"], "communicationUser": user},
            },
        }
        told = host.send_event("on_event", event)
        told.result()
        for text in told.logs:
            if " root: " in text:
                say(f"on_event logged {text!r}.")

        with DurableExtension(host) as extension:
            people = [user["id"], "4:+14255550123"]
            host.request("POST", "/api/threads", {"topic": "Plans", "participants": people})
            refused = extension.finish("instance-1")["refused"]
        say(f"The orchestration made a chat thread for {people}, and refused {refused}.")

        paths = [f"/api/{kind}threads/{thread_id}/messages" for kind in ("", "sync/")]
        calls = [("POST", path, {"content": "Hello"}) for path in paths] * 100
        statuses: Counter[int] = Counter()
        while time.perf_counter() - began < 8:
            statuses.update(reply.status for reply in host.requests(calls))
            say(f"Sent {statuses[201]} messages, 200 at a time.")
        say(f"The answers had the statuses {', '.join(map(str, statuses))}.")
        # No instance has to do this: its connections end with its process.
        host.run(sys.modules["clients"].async_connections().close())
        from azure.durable_functions.models.utils import http_utils

        host.run(http_utils._close_session())
        return 0 if issued.status == 200 and set(statuses) == {201} else 1


if __name__ == "__main__":
    sys.exit(work(sys.argv[1]) if len(sys.argv) > 1 else serve())
