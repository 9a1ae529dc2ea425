"""From text, AccessToken or AccessTokenInfo to a token with an expiry."""

import json
import logging
import pickle
from pathlib import Path

import pytest
from azure.communication.common import _token
from azure.communication.common._token import RedactedAccessToken, read_token
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
    assert "pass the bare JWT" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in case["token"].split("."):
        assert len(secret.strip()) < 8 or secret not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["opaque", "a.b", "AAA+/==", "IAmNotAToken", "foo.bar.tar", "a~b_c-d"]
)
def test_an_assumed_lifetime_admits_opaque_tokens(text):
    """With undecodable_token_lifetime anything that fits an Authorization header will do."""
    assert read(text, lifetime=30) == (text, 1_700_000_030)


@pytest.mark.parametrize(
    "text", ["", "   ", "Bearer abc", '"abc"', "abc\n", '{"token": "abc"}', "ž"]
)
def test_what_no_header_can_carry_is_refused_even_so(text):
    """A lifetime does not admit what is no token but something around one."""
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
    with pytest.raises(ValueError, match=r"expires_on, which \(str\) is none"):
        read(kind("opaque", "tomorrow"))


@pytest.mark.parametrize("text", ["", "with space\n", "ž", "a\rb"])
def test_an_access_token_that_no_header_can_carry_is_refused(text):
    """A line break in a token would end the header."""
    with pytest.raises(ValueError, match="printable ASCII"):
        read(AccessToken(text, 10))


@pytest.mark.parametrize("value", [None, 5, b"eyJ", {"token": "x"}, ("x", 10), ["x"], object()])
def test_another_type_is_refused_by_its_name(value):
    """The error says which types would do and which one came."""
    with pytest.raises(TypeError, match=f"^token must be a str.*not {type(value).__name__}$"):
        read(value)


def test_the_token_of_an_access_token_must_be_text():
    """An AccessToken around something else is refused."""
    with pytest.raises(TypeError, match="must be a str, not bytes"):
        read(AccessToken(b"x", 10))


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
