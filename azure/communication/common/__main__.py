"""Describe a token or an identifier on the command line.

::

    echo "$TOKEN" | python -m azure.communication.common token
    python -m azure.communication.common identifier 4:+14255550123

A token is read only from standard input, because other users of the machine can see command lines.
Neither the token nor its signature is printed. The exit code is 1 if the credential or the service
would refuse what was given.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ._identifiers import UnknownIdentifier, identifier_from_raw_id
from ._serialization import deserialize_identifier, serialize_identifier
from ._token import UNDECODABLE_TOKEN_LIFETIME_SECONDS, decode_jwt, is_encrypted, read_token


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m azure.communication.common",
        description="Describe a Communication token or an identifier.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser(
        "token",
        help="describe the token on standard input",
        description="Describe the token on standard input, and say why it would be refused.",
        epilog='example: echo "$TOKEN" | python -m azure.communication.common token',
    )
    identifier = commands.add_parser(
        "identifier",
        help="describe a raw id, or an identifier's JSON",
        description="Describe a raw id, or an identifier's JSON.",
        epilog="example: python -m azure.communication.common identifier 4:+14255550123",
    )
    identifier.add_argument("identifier", metavar="RAW_ID|JSON")
    for command in (token, identifier):
        command.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if options.command == "token":
        if sys.stdin.isatty():
            print(
                "Paste the token and press Enter, then Ctrl-D (on Windows, Ctrl-Z and Enter):",
                file=sys.stderr,
            )
        text = sys.stdin.buffer.read().decode("utf-8-sig", "replace").strip()
        report = describe_token(text, time.time())
    else:
        report = describe_identifier(options.identifier)
    print(json.dumps(report, indent=2) if options.json else "\n".join(_lines(report)))
    return 1 if "problem" in report else 0


def describe_token(text: str, now: float) -> dict[str, Any]:
    """Return what is known about a token; ``problem`` says why it would be refused."""
    if is_encrypted(text):
        note = (
            "encrypted, so only the service can read it; the credential assumes a lifetime of "
            f"{UNDECODABLE_TOKEN_LIFETIME_SECONDS} seconds unless undecodable_token_lifetime is set"
        )
        return {"form": "JWE", "note": note}
    header_and_claims = decode_jwt(text)
    if header_and_claims is None:
        report: dict[str, Any] = {"form": "not a JWT"}
    else:
        report = {"form": "JWT", "signature": "not checked; only the service can check it"}
        report.update(_read_claims(header_and_claims[1], now))
    try:
        expires_on = read_token(text, now, None, "token").expires_on
    except ValueError as error:
        return {**report, "problem": str(error)}
    left = int(expires_on - now)
    report.update(expires=_moment(expires_on), secondsLeft=left)
    if left <= 0:
        report["problem"] = f"the token expired {timedelta(seconds=-left)} ago: get a new one"
    elif "user" not in report and "audience" in report:
        report["problem"] = (
            "it is not a Communication token, but one for the audience above: to exchange it, pass "
            "its credential as token_credential, with resource_endpoint"
        )
    return report


def _read_claims(claims: dict[str, Any], now: float) -> dict[str, Any]:
    texts = {name: value for name, value in claims.items() if isinstance(value, str) and value}
    report: dict[str, Any] = {}
    if "skypeid" in texts:  # the raw id without its first part
        report["user"] = f"8:{texts['skypeid'].removeprefix('8:')}"
        report["kind"] = identifier_from_raw_id(report["user"]).kind.value
    if "aud" in texts:  # of an Entra token
        report["audience"] = texts["aud"]
    if "resourceId" in texts:
        report["resource"] = texts["resourceId"]
    scopes = texts.get("acsScope") or texts.get("scp")  # `scp` is a number beside the other
    if scopes:
        report["scopes"] = scopes.replace(",", " ").split()
    issued = claims.get("iat")
    if isinstance(issued, (int, float)) and 0 <= issued < 253_402_300_800:
        report["issued"] = _moment(issued)
        ahead = int(issued - now)
        report["clock"] = (
            f"this machine's clock is at least {timedelta(seconds=ahead)} behind the issuer's"
            if ahead > 0
            else "this machine's clock is not behind the issuer's"
        )
    return report


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat()


def describe_identifier(text: str) -> dict[str, Any]:
    """Return kind, properties and both forms of an identifier."""
    try:
        if text.lstrip().startswith("{"):
            identifier = deserialize_identifier(json.loads(text))
        else:
            identifier = identifier_from_raw_id(text)
    except (ValueError, RecursionError) as error:
        return {"problem": f"it is not an identifier's JSON: {error}"}
    report = {
        "kind": identifier.kind.value,
        "properties": dict(identifier.properties),
        "rawId": identifier.raw_id,
        "json": serialize_identifier(identifier),
    }
    if isinstance(identifier, UnknownIdentifier):
        kind = identifier_from_raw_id(identifier.raw_id).kind.value
        report["note"] = (
            "this version does not know its prefix; those that it knows include 4:, 8:acs: and "
            "8:orgid:"
            if kind == identifier.kind.value
            else f"the JSON has only a raw id or an unknown kind; its raw id is of the kind {kind}"
        )
    return report


def _lines(report: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in report.items():
        if name == "properties":
            lines += _lines(value, "  ")
            continue
        if name == "secondsLeft":
            name, value = "time left", str(timedelta(seconds=max(value, 0)))
        if isinstance(value, str):
            text = str.__str__(value)  # of an enum member, too
        else:
            text = ", ".join(value) if isinstance(value, list) else json.dumps(value)
        # Text from outside may hold control sequences for the terminal, so it is escaped.
        lines.append(
            f"{indent}{name}: {text if text.isascii() and text.isprintable() else ascii(text)}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
