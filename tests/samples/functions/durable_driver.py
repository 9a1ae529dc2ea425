"""A stand-in for the Durable Functions extension, as far as activities and their fan-out go.

It takes orders over HTTP as the extension does, and replays each orchestration: it calls the
orchestrator with the history so far, runs the activities that it asks for, adds their results to
the history and calls it again, until it is done.
"""

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from functions_host import FunctionsHost

# The kinds of events in a history, and of actions that an orchestrator asks for.
STARTED, EXECUTION_STARTED, SCHEDULED, COMPLETED, FAILED, PAUSED = 12, 0, 4, 5, 6, 13
CALL_ACTIVITY, WHEN_ALL = 0, 12


class OrchestrationFailed(Exception):
    """The orchestrator raised an exception."""


class DurableExtension:
    """Serves the durable clients of an app and runs what they start, in a ``with`` block."""

    def __init__(self, host: FunctionsHost) -> None:
        self._host = host
        self.started: dict[str, tuple[str, str]] = {}  # instance -> orchestrator, JSON of its input
        self.calls: list[tuple[str, str, str]] = []  # activity, JSON of its input and of its result

    def __enter__(self) -> "DurableExtension":
        started = self.started

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                instance = f"instance-{len(started) + 1}"
                started[instance] = (self.path.rpartition("/")[2], json.loads(content))
                answer = json.dumps({"id": instance}).encode()
                self.send_response(202)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_port}"
        status = f"{url}/instances/INSTANCE"
        binding = {
            "taskHubName": "hub",
            "creationUrls": {},
            "managementUrls": {"id": "INSTANCE", "statusQueryGetUri": status},
            "rpcBaseUrl": f"{url}/",
        }
        self._host.inputs["durableClient"] = json.dumps(binding)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def finish(self, instance: str) -> Any:
        """Run a started orchestration to its end, and return its output."""
        return self.run(*self.started[instance], instance=instance)

    def run(self, orchestrator: str, input_json: str, *, instance: str = "instance") -> Any:
        """Run an orchestrator to its end, and return its output."""
        history: list[dict[str, Any]] = []
        _add(history, STARTED)
        _add(history, EXECUTION_STARTED, Name=orchestrator, Input=input_json, Version=None)
        scheduled = 0
        while True:
            context = {
                "history": history,
                "input": input_json,
                "instanceId": instance,
                "isReplaying": False,
                "parentInstanceId": None,
                "upperSchemaVersion": 0,
                "upperSchemaVersionNew": 2,
            }
            outcome = self._host.invoke(
                orchestrator,
                **{self._host.trigger(orchestrator): self._host.typed(string=json.dumps(context))},
            )
            if outcome.error:
                raise OrchestrationFailed(outcome.error)
            state = outcome.value
            if state["isDone"]:
                return state.get("output")
            # All that was asked for since the beginning, in order.
            activities = list(_activities(state["actions"]))
            new = list(enumerate(activities))[scheduled:]
            scheduled = len(activities)
            for number, activity in new:
                _add(history, SCHEDULED, number, Name=activity["functionName"])
            _add(history, PAUSED)
            for event in history:
                event["IsPlayed"] = True
            _add(history, STARTED)
            for number, activity in new:
                self._call(history, number, activity["functionName"], activity["input"])

    def _call(self, history: list[dict[str, Any]], number: int, name: str, input_json: str) -> None:
        data = {self._host.trigger(name): self._host.typed(string=input_json)}
        outcome = self._host.invoke(name, **data)
        if outcome.error:
            failure: dict[str, Any] = {"Reason": outcome.error, "Details": outcome.stack}
            _add(history, FAILED, TaskScheduledId=number, **failure)
        else:
            result = json.dumps(outcome.value)
            self.calls.append((name, input_json, result))
            _add(history, COMPLETED, TaskScheduledId=number, Result=result)


def _add(history: list[dict[str, Any]], kind: int, number: int = -1, **members: Any) -> None:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    event = {"EventType": kind, "EventId": number, "IsPlayed": False, "Timestamp": now}
    history.append({**event, **members})


def _activities(actions: list[Any]) -> Iterator[dict[str, Any]]:
    for action in actions:
        if isinstance(action, list):
            yield from _activities(action)
        elif action["actionType"] == WHEN_ALL:
            yield from _activities(action["compoundActions"])
        else:
            assert action["actionType"] == CALL_ACTIVITY, f"not known here: {action}"
            yield action
