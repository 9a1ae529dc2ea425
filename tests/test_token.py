"""From text, AccessToken or AccessTokenInfo to a token with an expiry."""

import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from azure.communication.common import _token
from azure.communication.common._token import RedactedAccessToken, check_token_text, read_token
from azure.core.credentials import AccessToken, AccessTokenInfo
from hypothesis import given
from hypothesis import strategies as st

CASES = json.loads((Path(__file__).parent / "conformance" / "tokens.json").read_text())
NOW = 1_700_000_000.75


def read(value, lifetime=None):
    return read_token(value, NOW, lifetime, "token")


def by_name(kind):
    return [pytest.param(case, id=case["name"]) for case in CASES[kind]]


@pytest.mark.parametrize("case", by_name("valid"))
def test_the_exp_claim_is_read_and_floored(case):
    """A readable JWT keeps its text and gets the expiry of its claim."""
    assert read(case["token"]) == (case["token"], case["expires_on"])


@pytest.mark.parametrize("case", by_name("valid"))
def test_a_readable_exp_wins_over_an_assumed_lifetime(case):
    """undecodable_token_lifetime is for tokens that cannot be read, and for no others."""
    assert read(case["token"], lifetime=30).expires_on == case["expires_on"]


@pytest.mark.parametrize("case", by_name("encrypted"))
def test_an_encrypted_token_lives_ten_minutes_or_as_long_as_said(case, caplog, monkeypatch):
    """A JWE gets 600 seconds with one warning per process, or what the user says with none."""
    monkeypatch.setattr(_token, "_encrypted_token_seen", False)
    assert read(case["token"], lifetime=30).expires_on == 1_700_000_030
    assert caplog.records == []
    assert read(case["token"]).expires_on == 1_700_000_600
    assert read(case["token"]).expires_on == 1_700_000_600
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "undecodable_token_lifetime" in record.getMessage()
    assert case["token"] not in record.getMessage()


@pytest.mark.parametrize("case", by_name("invalid"))
def test_any_other_text_is_refused_with_the_remedy(case):
    """The error names the argument and says what to pass, and neither it nor its cause shows it."""
    with pytest.raises(ValueError, match=r"^token") as caught:
        read(case["token"])
    assert "use the " in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in case["token"].split("."):
        assert len(secret.strip()) < 8 or secret not in str(caught.value)


def with_segments(header, claims, signature="c2ln"):
    return f"{encoded(header)}.{encoded(claims)}.{signature}"


def encoded(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return jwt.utils.base64url_encode(text).decode()


@pytest.mark.parametrize("signature", ["", "x", "xxxxx", "c2ln", "c2ln==", "c2lnbg=", "_" * 41])
def test_the_signature_is_not_checked(signature):
    """It may be cut short or not even base64: refusing it is up to the service."""
    token = with_segments({"alg": "RS256"}, {"exp": 4_102_444_800}, signature)
    assert read(token) == (token, 4_102_444_800)


@pytest.mark.parametrize("header", [{"kid": 5}, {"crit": ["x"]}, {"b64": False}, {}])
def test_the_header_is_not_judged(header):
    """Whatever it says about the signature, the expiry is that of the claims."""
    token = with_segments(header, {"exp": 4_102_444_800})
    assert read(token) == (token, 4_102_444_800)


def test_an_assumed_lifetime_is_for_a_jwt_without_a_readable_exp_too():
    """Whatever the reason, nothing better is known."""
    for claims in ({}, {"exp": "4102444800"}, {"exp": -1}):
        token = with_segments({}, claims)
        assert read(token, lifetime=30) == (token, 1_700_000_030)


def test_five_segments_alone_are_not_encrypted():
    """The header has to say how."""
    for header in (b'{"alg":"RSA-OAEP"}', b'["enc"]', b"enc"):
        with pytest.raises(ValueError, match="is not a JWT"):
            read(f"{encoded(header)}.a.b.c.d")


def test_padding_is_read_in_every_segment_and_kept():
    """The token goes out as it came in."""
    segments = [b'{"alg":"none"}', b'{"exp":4102444800}', b"x"]
    token = ".".join(jwt.utils.base64.urlsafe_b64encode(each).decode() for each in segments)
    assert token.count("=") > 2
    assert read(token) == (token, 4_102_444_800)
    encrypted = ".".join(["eyJlbmMiOiJBIn0=", "", "YQ==", "YQ==", "YQ=="])
    assert read(encrypted, lifetime=30) == (encrypted, 1_700_000_030)


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("xyz", "is not a JWT (3 characters): use the bare JWT, which is the 'token' part of"),
        ("a.b.c", "is not a JWT (5 characters): use the bare JWT"),
        (with_segments(b"no JSON", {"exp": 10}), "is not a JWT (31 characters): use the bare JWT"),
        (with_segments([], {"exp": 10}), "is not a JWT"),
        (with_segments({}, b"[1]"), "is not a JWT"),
        (with_segments({}, b"[" * 100_000), "is not a JWT"),
        (with_segments({}, b"9" * 5_000), "is not a JWT"),
        ("bearer eyJ", "without 'Bearer', quotes, spaces or line breaks"),
        ("Bearer\teyJ", "without 'Bearer', quotes, spaces or line breaks"),
        ("'eyJ'", "without 'Bearer', quotes, spaces or line breaks"),
        ("eyJ\r\n", "without 'Bearer', quotes, spaces or line breaks"),
        (' {"token": "x"}', "the 'token' part of this response"),
        ("AccessKey=a2V5;Endpoint=https://x/", "it is a connection string"),
        ("a2V5" * 21 + "a2U=", "it looks like an access key"),
        (with_segments({}, {"exp": "1"}), "its 'exp' claim must be Unix seconds, not str; use"),
        (with_segments({}, {"exp": True}), "its 'exp' claim must be Unix seconds, not bool"),
        (with_segments({}, {"exp": -1}), "its 'exp' claim is out of range for Unix seconds"),
    ],
)
def test_the_message_says_what_it_is_and_what_to_pass(token, problem):
    """In fewer than 200 characters, also for a refresher's result, and without the text."""
    for source in ("token", "The result of token_refresher"):
        with pytest.raises(ValueError, match=f"^{source}") as caught:
            read_token(token, NOW, None, source)
        assert problem in str(caught.value)
        assert len(str(caught.value)) < 200
        for secret in ("eyJ", "a2V5", "x/"):
            assert secret not in str(caught.value)


@pytest.mark.parametrize("text", ["", "Bearer abc", '"abc"', "ž", '{"token": "abc"}', "a b"])
def test_nobody_is_told_to_set_what_is_set(text):
    """If a lifetime is given, the message does not ask for one."""
    with pytest.raises(ValueError, match="use the bare JWT") as caught:
        read(text, lifetime=30)
    assert "undecodable_token_lifetime" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["opaque", "a.b", "AAA+/==", "IAmNotAToken", "foo.bar.tar", "a~b_c-d"]
)
def test_an_assumed_lifetime_admits_opaque_tokens(text):
    """With undecodable_token_lifetime anything that fits an Authorization header will do."""
    assert read(text, lifetime=30) == (text, 1_700_000_030)


@pytest.mark.parametrize("text", ["   ", "Bearer abc", '"abc"', "abc\n", '{"token": "abc"}', "ž"])
def test_what_no_header_can_carry_is_refused_even_so(text):
    """A lifetime does not make text around a token acceptable."""
    with pytest.raises(ValueError, match="is not a JWT"):
        read(text, lifetime=30)


@pytest.mark.parametrize("kind", [AccessToken, AccessTokenInfo])
@pytest.mark.parametrize(("expiry", "expected"), [(10, 10), (10.9, 10), (0, 0)])
def test_an_access_token_brings_its_own_expiry(kind, expiry, expected):
    """The text of an AccessToken need not be a JWT."""
    assert read(kind("opaque", expiry)) == ("opaque", expected)


@pytest.mark.parametrize("kind", [AccessToken, AccessTokenInfo])
@pytest.mark.parametrize("expiry", [None, True, -1, float("nan"), float("inf"), 10**400, 1e15])
def test_an_expiry_that_is_no_time_is_refused(kind, expiry):
    """Whatever cannot be Unix seconds is refused, also what would overflow later."""
    with pytest.raises(ValueError, match="expires_on"):
        read(kind("opaque", expiry))


@pytest.mark.parametrize("kind", [AccessToken, AccessTokenInfo])
def test_an_expiry_may_be_the_text_that_the_service_sent(kind):
    """azure-communication-identity puts it there as it came."""
    assert read(kind("opaque", "2026-11-25T04:48:19.0000000+00:00")) == ("opaque", 1_795_582_099)
    with pytest.raises(ValueError, match="expires_on must be Unix seconds, not str"):
        read(kind("opaque", "tomorrow"))


@pytest.mark.parametrize("kind", [AccessToken, AccessTokenInfo])
@pytest.mark.parametrize(
    ("expiry", "problem"),
    [
        (None, "is missing"),
        (True, "must be Unix seconds, not bool"),
        ("9999-12-31T23:59:59-00:01", "must be Unix seconds, not str"),
    ],
)
def test_an_expiry_that_is_no_time_is_named(kind, expiry, problem):
    """With what to pass, and nothing about JWTs."""
    with pytest.raises(ValueError, match=problem) as caught:
        read(kind("opaque", expiry))
    assert str(caught.value) == (
        f"token: its expires_on {problem}; pass seconds since 1970, as time.time() returns them"
    )


@pytest.mark.parametrize("text", ["", "with space\n", "ž", "a\rb"])
def test_an_access_token_that_no_header_can_carry_is_refused(text):
    """A line break in a token would end the header."""
    with pytest.raises(ValueError, match="printable ASCII"):
        read(AccessToken(text, 10))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (5, ""),
        (bytearray(b"eyJ"), ": decode it"),
        (["eyJ"], ""),
        (object(), ""),
    ],
)
def test_another_type_is_refused_by_its_name(value, remedy):
    """The error says which types would do, which one came and what to do about it."""
    for source in ("token", "The result of token_refresher"):
        with pytest.raises(TypeError) as caught:
            read_token(value, NOW, None, source)
        assert str(caught.value) == (
            f"{source} must be a str, an AccessToken or an AccessTokenInfo, "
            f"not {type(value).__name__}{remedy}"
        )
        assert len(str(caught.value)) < 200


def test_the_token_of_an_access_token_must_be_text():
    """An AccessToken around something else is refused."""
    with pytest.raises(TypeError, match="'token' of an AccessToken must be a str, not bytes: deco"):
        read(AccessToken(b"x", 10))


@pytest.mark.parametrize(
    ("token", "error", "message"),
    [
        ("", ValueError, "it must be printable ASCII and not empty: strip spaces and line breaks"),
        ("eyJ\n", ValueError, "it must be printable ASCII and not empty: strip"),
        ("eyJ\x00", ValueError, "it must be printable ASCII"),
        ("eyJ\x7f", ValueError, "it must be printable ASCII"),
        ("eyJž", ValueError, "it must be printable ASCII"),
        ("eyJ\ud800", ValueError, "it must be printable ASCII"),
        (None, TypeError, "it must be a str, not NoneType: is it missing from the response?"),
        (b"eyJ", TypeError, "it must be a str, not bytes: decode it"),
        (5, TypeError, "it must be a str, not int"),
    ],
)
def test_what_no_header_can_carry_is_named_and_not_shown(token, error, message):
    """For tokens of foreign credentials, before a transport sees them."""
    with pytest.raises(error) as caught:
        check_token_text(token, "it")
    assert str(caught.value).startswith(message)
    assert "eyJ" not in str(caught.value)


def test_any_printable_ascii_is_header_text():
    """What is not a JWT may still be a token."""
    assert check_token_text("eyJ.x.y opaque~", "it") is None


def test_the_decoder_is_loaded_when_asked_for():
    """PyJWT is imported by the first token that is read, or before, by whoever wants it then."""
    script = (
        "import sys\n"
        "from azure.communication.common import CommunicationTokenCredential, _token\n"
        "print('jwt' in sys.modules)\n"
        "_token.load_decoder()\n"
        "before = {*sys.modules}\n"
        f"_token.read_token({CASES['valid'][0]['token']!r}, 0, None, 'token')\n"
        f"_token.read_token({CASES['encrypted'][0]['token']!r}, 0, 5, 'token')\n"
        "print('jwt' in before, {*sys.modules} - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.stderr) == ("False\nTrue set()\n", "")


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9_-]{0,20}){1,5}"))
def test_no_text_leads_to_another_exception(text):
    """Reading ends in a token or in a ValueError, whatever the text."""
    try:
        token = read(text)
    except ValueError:
        return
    assert token.token == text


def test_what_is_returned_does_not_show_the_token():
    """repr, str and format of both kinds hide the text, which stays readable and picklable."""
    token = RedactedAccessToken("secret", 10)
    info = _token.RedactedAccessTokenInfo("secret", 10, refresh_on=5)
    for shown in (
        repr(token),
        str(token),
        f"{token}",
        repr(info),
        str(info),
        f"{info}",
        f"{[info]}",
    ):
        assert "secret" not in shown
        assert "expires_on=10" in shown
    assert pickle.loads(pickle.dumps(token)) == token == AccessToken("secret", 10)
    assert (info.token, info.refresh_on, info.token_type) == ("secret", 5, "Bearer")
