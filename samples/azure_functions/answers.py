"""What the HTTP functions read and answer: JSON, and problems in the form of RFC 9457."""

import json
import logging
from http import HTTPStatus
from typing import Any

import azure.functions as func
from azure.core.exceptions import HttpResponseError


def read_json(req: func.HttpRequest) -> Any:
    """Return the decoded body; None, which no function accepts, if it is not JSON.

    JSON that is nested too deeply counts as malformed, and so does text that cannot be sent on:
    JSON can express half of a surrogate pair, UTF-8 cannot.
    """
    try:
        value = req.get_json()
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def answer(status: int, **members: Any) -> func.HttpResponse:
    """Answer with a JSON object that no cache keeps, because it may hold a token."""
    return func.HttpResponse(
        json.dumps(members),
        status_code=status,
        mimetype="application/json",
        headers={"Cache-Control": "no-store"},
    )


def problem(status: int, detail: str) -> func.HttpResponse:
    """Answer with a problem. Callers read ``detail``, so it must not tell a secret."""
    members = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return func.HttpResponse(
        json.dumps(members), status_code=status, mimetype="application/problem+json"
    )


def failure(error: Exception) -> func.HttpResponse:
    """Answer for a call to Communication Services that failed.

    The caller is told whether its own request was at fault. The rest is for the log.
    """
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status in (400, 403, 404):
        return problem(
            status, f"Azure Communication Services answered {HTTPStatus(status).phrase}."
        )
    logging.error("A call to Azure Communication Services failed.", exc_info=error)
    return problem(502, "Azure Communication Services did not do what this app asked of it.")
