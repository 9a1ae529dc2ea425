"""The command ``python -m azure.communication.common``, which describes tokens and identifiers."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from azure.communication.common.__main__ import main
from azure.communication.identity import CommunicationIdentityClient
from azure.core.pipeline.transport import RequestsTransport

from local_service import LocalService
from scaffolding import make_token

CASES = json.loads((Path(__file__).parent / "conformance" / "tokens.json").read_text())
RAW_IDS = json.loads((Path(__file__).parent / "conformance" / "raw_ids.json").read_text("utf-8"))
USER = {"skypeid": "acs:r_u", "acsScope": "chat,voip", "resourceId": "r", "scp": 1792}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command on an input: exit code and output."""

    def run(*arguments: str, stdin: str | bytes = b"") -> tuple[int, str]:
        content = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code = main(arguments)
        out, err = capsys.readouterr()
        assert err == ""
        return code, out

    return run


def test_a_token_is_described(command: Any) -> None:
    """Whose it is, for what, since when, until when and for how long still."""
    now = time.time()
    token = make_token(now + 7200.9, **USER, iat=int(now) - 60)
    code, out = command("token", stdin=f"{token}\n")
    assert code == 0
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["form"] == "JWT"
    assert lines["user"] == "8:acs:r_u"
    assert lines["kind"] == "communication_user"
    assert lines["resource"] == "r"
    assert lines["scopes"] == "chat, voip"
    assert lines["signature"] == "not checked; only the service can check it"
    assert lines["clock"] == "this machine's clock is not behind the issuer's"
    assert lines["time left"] in ("2:00:00", "1:59:59", "1:59:58")
    assert lines["issued"].endswith("+00:00")
    assert lines["expires"].endswith("+00:00")
    code, out = command("token", "--json", stdin=token)
    report = json.loads(out)
    assert code == 0
    assert (report["user"], report["scopes"]) == ("8:acs:r_u", ["chat", "voip"])
    assert 7190 < report["secondsLeft"] <= 7200


@pytest.mark.parametrize(
    ("claims", "shown"),
    [
        ({"skypeid": "orgid:x"}, {"user": "8:orgid:x", "kind": "microsoft_teams_user"}),
        ({"skypeid": "8:acs:r_u"}, {"user": "8:acs:r_u"}),
        ({"skypeid": "acs:r_t_u"}, {"user": "8:acs:r_t_u", "kind": "teams_extension_user"}),
        ({"skypeid": 5}, {"user": None}),
        ({"acsScope": "chat"}, {"scopes": ["chat"]}),
        ({"scp": "VoIP Chat"}, {"scopes": ["VoIP", "Chat"]}),
        ({"scp": 1792}, {"scopes": None}),
        ({"acsScope": ["chat"]}, {"scopes": None}),
        ({"resourceId": None}, {"resource": None}),
        ({"iat": "now"}, {"issued": None, "clock": None}),
        ({"iat": -1}, {"issued": None}),
        ({"iat": 1e300}, {"issued": None}),
        ({"iat": 0.9}, {"issued": "1970-01-01T00:00:00+00:00"}),
    ],
    ids=str,
)
def test_claims_are_read_tolerantly(command: Any, claims: Any, shown: dict[str, Any]) -> None:
    """What is missing, or of an unknown form, is left out."""
    code, out = command("token", "--json", stdin=make_token(4_102_444_800, **claims))
    report = json.loads(out)
    assert code == 0
    assert {name: report.get(name) for name in shown} == shown


def test_a_clock_that_is_behind_is_seen(command: Any) -> None:
    """A token cannot have been issued in the future."""
    token = make_token(4_102_444_800, iat=int(time.time()) + 7201)
    code, out = command("token", stdin=token)
    assert code == 0
    assert "clock: this machine's clock is at least 2:00:0" in out
    assert "behind the issuer's" in out


def test_a_token_that_expired_just_now_would_be_refused(command: Any) -> None:
    """There is no leeway."""
    code, out = command("token", stdin=make_token(time.time(), **USER))
    assert code == 1
    assert "problem: the token expired 0:00:0" in out


def test_an_expired_token_would_be_refused(command: Any) -> None:
    """It says for how long it has been expired."""
    code, out = command("token", stdin=make_token(time.time() - 7200, **USER))
    assert code == 1
    assert "time left: 0:00:00\n" in out
    assert "problem: the token expired 2:00:0" in out


def test_a_token_of_another_audience_would_be_refused(command: Any) -> None:
    """Such as an Entra token, which has to be exchanged first."""
    token = make_token(4_102_444_800, aud="https://communication.azure.com", scp="VoIP")
    code, out = command("token", stdin=token)
    assert code == 1
    assert "audience: https://communication.azure.com\n" in out
    assert "problem: it is not a Communication token, but one for the audience above: to" in out


def test_an_encrypted_token_is_said_to_be_one(command: Any) -> None:
    """Nobody but the service can tell whether it is good."""
    code, out = command("token", stdin=CASES["encrypted"][0]["token"])
    assert code == 0
    assert out == (
        "form: JWE\nnote: encrypted, so only the service can read it; the credential assumes a "
        "lifetime of 600 seconds unless undecodable_token_lifetime is set\n"
    )


@pytest.mark.parametrize(
    "case", [case for case in CASES["invalid"] if case["token"].strip() == case["token"]], ids=str
)
@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
def test_what_the_credential_refuses_is_refused(command: Any, option: list[str], case: Any) -> None:
    """With the same message."""
    code, out = command("token", *option, stdin=case["token"])
    assert code == 1
    assert "use the " in out


@pytest.mark.parametrize(
    "stdin", [b"", b"\xff\xfe", b"\x00", b"[" * 100_000, "\u017e".encode(), b"a.b.c"], ids=range(6)
)
def test_any_input_is_answered(command: Any, stdin: bytes) -> None:
    """Never by a traceback."""
    code, out = command("token", stdin=stdin)
    assert code == 1
    problem = "is not a JWT" if stdin else "is empty"
    assert out.startswith(f"form: not a JWT\nproblem: token {problem}")


def test_space_and_a_byte_order_mark_around_a_token_are_ignored(command: Any) -> None:
    """As shells and editors add them."""
    token = make_token(4_102_444_800, **USER)
    code, _ = command("token", stdin=b"\xef\xbb\xbf" + f" {token}\r\n".encode())
    assert code == 0


def test_neither_token_nor_signature_is_printed(command: Any) -> None:
    """Of a valid, an expired, an encrypted and a mangled token, in both forms."""
    valid = make_token(4_102_444_800, **USER)
    for token in (
        valid,
        make_token(5, **USER),
        CASES["encrypted"][0]["token"],
        f"Bearer {valid}",
        valid.replace("e", "*"),
        valid[:-20],
    ):
        for option in ([], ["--json"]):
            _, out = command("token", *option, stdin=token)
            assert out
            for segment in token.split("."):
                assert segment not in out


def test_nothing_from_outside_reaches_the_terminal_as_it_is(command: Any) -> None:
    """A claim could move the cursor, or colour what follows."""
    token = make_token(4_102_444_800, skypeid="acs:\x1b[31m\x9b\u202e", resourceId="\r\n")
    _, out = command("token", stdin=token)
    assert "user: '8:acs:\\x1b[31m\\x9b\\u202e'\n" in out
    assert "resource: '\\r\\n'\n" in out
    _, out = command("identifier", "8:caf\xe9")
    assert "rawId: '8:caf\\xe9'\n" in out
    _, out = command("identifier", "4:\x1b\x9b")
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_a_token_that_the_service_issued_is_described(command: Any) -> None:
    """With the user, the resource and the scopes that it was issued for."""
    with LocalService() as service, RequestsTransport(**service.client_options()) as transport:
        client = CommunicationIdentityClient.from_connection_string(
            service.connection_string, transport=transport
        )
        user, token = client.create_user_and_token(["chat", "voip"])
    code, out = command("token", "--json", stdin=token.token)
    report = json.loads(out)
    assert code == 0
    assert (report["user"], report["kind"]) == (user.raw_id, "communication_user")
    assert (report["scopes"], report["resource"]) == (["chat", "voip"], service.resource_id)


@pytest.mark.parametrize("case", RAW_IDS, ids=lambda case: case["raw_id"] or "empty")
def test_an_identifier_is_described_from_either_form(command: Any, case: Any) -> None:
    """Its kind, its properties and both forms."""
    expected = {
        "kind": case["kind"],
        "properties": case["properties"],
        "rawId": case["raw_id"],
        "json": case["wire"],
    }
    for form in (case["raw_id"], json.dumps(case["wire"])):
        code, out = command("identifier", form, "--json")
        report = json.loads(out)
        assert ("note" in report) == (case["kind"] == "unknown")
        report.pop("note", None)
        assert (code, report) == (0, expected)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("14255550123", "this version does not know its prefix; those that it knows include 4:,"),
        ('{"rawId": "48:x"}', "this version does not know its prefix; those"),
        ('{"rawId": "8:acs:u"}', "its raw id is of the kind communication_user"),
        ('{"rawId": "4:+1", "kind": "new"}', "its raw id is of the kind phone_number"),
    ],
)
def test_an_unknown_identifier_gets_a_note(command: Any, text: str, note: str) -> None:
    """It says why the kind is not known."""
    code, out = command("identifier", text)
    assert (code, out.splitlines()[0]) == (0, "kind: unknown")
    assert note in out.splitlines()[-1]


def test_an_identifier_is_described_in_lines(command: Any) -> None:
    """One for each property, and both forms."""
    assert "\n  cloud: GCCH\n" in command("identifier", "8:gcch:u")[1]
    assert command("identifier", "4:+1_x") == (
        0,
        "kind: phone_number\n"
        "  value: +1_x\n"
        "  is_anonymous: false\n"
        "  asserted_id: x\n"
        "rawId: 4:+1_x\n"
        'json: {"rawId": "4:+1_x", "phoneNumber": '
        '{"value": "+1_x", "isAnonymous": false, "assertedId": "x"}}\n',
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "the identifier must have the member rawId or one of"),
        ('{"rawId": 5}', "the member rawId must be a JSON string, not int"),
        ("{", "it is not an identifier's JSON"),
        ('{"a":' * 100_000, "it is not an identifier's JSON"),
    ],
    ids=range(4),
)
def test_malformed_json_is_a_problem(command: Any, text: str, problem: str) -> None:
    """What is wrong is said, and the exit code is 1."""
    code, out = command("identifier", text)
    assert code == 1
    assert out.startswith("problem: ")
    assert problem in out


@pytest.mark.parametrize(
    "arguments", [[], ["token", "eyJ"], ["identifier"], ["token", "--raw"]], ids=str
)
def test_a_token_is_no_argument(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Others see command lines; that, and other mistakes, are errors of usage."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m azure.communication.common" in capsys.readouterr().err


def test_who_types_is_asked_for_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the command would seem to hang."""

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(make_token(5).encode())))
    assert main(["token"]) == 1
    out, err = capsys.readouterr()
    assert "problem: the token expired" in out
    assert err == "Paste the token and press Enter, then Ctrl-D (on Windows, Ctrl-Z and Enter):\n"


@pytest.mark.parametrize(("life", "code"), [(3600, 0), (-3600, 1)])
def test_it_runs_from_a_shell(life: int, code: int) -> None:
    """Reading standard input, with its exit code."""
    run = subprocess.run(
        [sys.executable, "-m", "azure.communication.common", "token"],
        input=make_token(time.time() + life, **USER),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (code, "")
    assert "user: 8:acs:r_u\n" in run.stdout
