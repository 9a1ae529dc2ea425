"""Turn what users and refreshers provide into a token with an expiry.

A Communication token is a JWT, and its ``exp`` claim (RFC 7519, section 4.1.4) is all that a client
needs from it. The signature is never checked: the client holds no key, and the service checks it.
Only the service can read a JWE (RFC 7516), so its lifetime has to be assumed.

Only PyJWT's base64url decoder is used. ``jwt.decode`` takes up to six times as long, mostly for the
signature and for checks that would be disabled here, and its releases disagree about what is
malformed.

Nothing here puts a token into an error, so the messages of parsers, which may quote it, are
dropped.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeAlias

from azure.core.credentials import AccessToken, AccessTokenInfo

_LOGGER = logging.getLogger(__name__)

TokenLike: TypeAlias = str | AccessToken | AccessTokenInfo

UNDECODABLE_TOKEN_LIFETIME_SECONDS = 600  # what the JavaScript package assumes
_LAST_EXPIRY = 253_402_300_799  # 9999-12-31T23:59:59Z; far beyond it, sums of times overflow

_ISO_8601 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.,][0-9]+)?"
    r"(?:[Zz]|([+-][0-9]{2})(?::?([0-9]{2}))?)?"
)

# Segments, and their padding, which no JWT should have, but hand-made ones do.
_SEGMENT, _PADDING = "[A-Za-z0-9_-]", "={0,2}"
_ANY = rf"\.{_SEGMENT}*{_PADDING}"
_JWS = re.compile(rf"({_SEGMENT}+){_PADDING}\.({_SEGMENT}+){_PADDING}{_ANY}")
_JWE = re.compile(rf"({_SEGMENT}+){_PADDING}{_ANY * 4}")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what an Authorization header can carry, RFC 6750
_WHITE_SPACE = re.compile(r"\s")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")

_REMEDY = (
    "use the bare JWT, which is the 'token' part of the identity service's response, or an "
    "AccessToken"
)


class RedactedAccessToken(AccessToken):
    """An azure-core ``AccessToken`` whose ``repr`` does not show the token."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"AccessToken(token='***', expires_on={self.expires_on})"


class RedactedAccessTokenInfo(AccessTokenInfo):
    """An azure-core ``AccessTokenInfo`` whose ``repr`` does not show the token."""

    def __repr__(self) -> str:
        return (
            f"AccessTokenInfo(token='***', expires_on={self.expires_on}, "
            f"token_type={self.token_type!r}, refresh_on={self.refresh_on})"
        )


def read_token(
    value: Any, now: float, undecodable_token_lifetime: float | None, source: str
) -> RedactedAccessToken:
    """Turn a JWT, an ``AccessToken`` or an ``AccessTokenInfo`` into a token with its expiry.

    :param value: The text or object.
    :param float now: The current Unix time in seconds.
    :param undecodable_token_lifetime: The lifetime in seconds of a token whose expiry cannot be
        read. If it is ``None``, only an encrypted token (JWE) may be unreadable, and its lifetime
        is 600 seconds.
    :type undecodable_token_lifetime: float or None
    :param str source: What the value is called in an error, for example ``"token"``.
    :return: The token, with ``expires_on`` in Unix seconds.
    :rtype: ~azure.core.credentials.AccessToken
    :raises TypeError: If the value is not one of the three.
    :raises ValueError: If the token is empty or its expiry cannot be read. The message says what to
        do, in fewer than 200 characters.
    """
    if isinstance(value, str):
        expires_on = _read_expiry(value, now, undecodable_token_lifetime, source)
        return RedactedAccessToken(value, expires_on)
    if isinstance(value, (AccessToken, AccessTokenInfo)):
        check_token_text(value.token, f"{source}: the 'token' of an AccessToken")
        expiry: Any = value.expires_on
        if isinstance(expiry, str):  # what azure-communication-identity puts there
            expiry = read_time(expiry) or expiry
        if not _is_expiry(expiry):
            remedy = "pass seconds since 1970, as time.time() returns them"
            _refuse_expiry(expiry, f"{source}: its expires_on", remedy)
        return RedactedAccessToken(value.token, int(expiry))
    remedy = ": does the function return the token?" if value is None else _remedy_for_type(value)
    expected = "a str, an AccessToken or an AccessTokenInfo"
    msg = f"{source} must be {expected}, not {_name(value)}{remedy}"
    raise TypeError(msg)


def check_token_text(token: object, source: str) -> None:
    """Check that a header can carry a token, so that no transport quotes it in an error.

    :param token: The text of the token, whoever issued it.
    :param str source: What it is called in an error.
    :raises TypeError: If it is not a ``str``.
    :raises ValueError: If it is empty, or not printable ASCII.
    """
    if not isinstance(token, str):
        msg = f"{source} must be a str, not {_name(token)}{_remedy_for_type(token)}"
        raise TypeError(msg)
    if not token or not token.isascii() or not token.isprintable():
        msg = f"{source} must be printable ASCII and not empty: strip spaces and line breaks"
        raise ValueError(msg)


def _remedy_for_type(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return ": decode it"
    if isinstance(value, Mapping):
        return ": use its 'token'"
    if isinstance(value, tuple):
        return ": use the element that holds the token"
    if value is None:
        return ": is it missing from the response?"
    if hasattr(value, "get_token") or hasattr(value, "get_token_info"):
        return ": pass it as token_credential, with resource_endpoint"
    if hasattr(value, "token"):
        return ": use its 'token' attribute"
    return ""


def load_decoder() -> Callable[[str], bytes]:
    """Import PyJWT and return its base64url decoder.

    Importing it takes 50 ms where cryptography is installed, too long for the import of this
    package. A background thread must not be the first to import it: if the process forks during an
    import, the child waits for the import lock forever.
    """
    from jwt.utils import base64url_decode

    return base64url_decode


def decode_jwt(token: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the header and the claims of a JWT, whose signature is not checked.

    :param str token: Any text.
    :return: Both as JSON has them, or None if the text is not a JWT.
    :rtype: tuple[dict[str, any], dict[str, any]] or None
    """
    match = _JWS.fullmatch(token)
    if match is None:
        return None
    header, claims = _read_json(match[1]), _read_json(match[2])
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return None
    return header, claims


def is_encrypted(token: str) -> bool:
    """Return whether a token is a JWE, which only the service can read.

    :param str token: Any text.
    :rtype: bool
    """
    match = _JWE.fullmatch(token)
    header = _read_json(match[1]) if match is not None else None
    return isinstance(header, dict) and "enc" in header


def read_time(text: object) -> int | None:
    """Return a time in ISO 8601 as Unix seconds, rounded down, or None if it is not one.

    Before Python 3.11, ``datetime.fromisoformat`` accepts neither seven fractional digits nor
    ``Z``. A time without an offset is taken to be UTC.
    """
    match = _ISO_8601.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    date, time, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{hours or '+00'}:{minutes or '00'}")
    except ValueError:  # there is no such day, hour or offset
        return None
    seconds = int(moment.timestamp())
    # .NET's unset time is in the year 1, and an offset may take a time beyond the year 9999.
    return seconds if 0 < seconds <= _LAST_EXPIRY else None


def _read_expiry(token: str, now: float, lifetime: float | None, source: str) -> int:
    decoded = decode_jwt(token)
    if decoded is not None:
        exp: Any = decoded[1].get("exp")
        if _is_expiry(exp):
            return int(exp)
        if lifetime is None:
            remedy = "use the JWT as the identity service issued it, or an AccessToken"
            _refuse_expiry(exp, f"{source}: its 'exp' claim", remedy)
    elif is_encrypted(token):
        if lifetime is None:
            _warn_once_about_encrypted_token()
            lifetime = UNDECODABLE_TOKEN_LIFETIME_SECONDS
    elif lifetime is None or not _B64TOKEN.fullmatch(token):
        remedy = _remedy(token, can_be_opaque=lifetime is not None)
        problem = f"is not a JWT ({len(token)} characters)" if token else "is empty"
        msg = f"{source} {problem}: {remedy}"
        raise ValueError(msg)
    return int(now + lifetime)


def _read_json(segment: str) -> object:
    try:
        return json.loads(load_decoder()(segment))
    except (ValueError, RecursionError):  # binascii, UTF-8 and JSON all raise the former
        return None


def _remedy(text: str, *, can_be_opaque: bool) -> str:
    """Return what to do about a text that is not a token."""
    if "accesskey=" in text[:1000].lower():
        return (
            "it is a connection string. Use the bare JWT that CommunicationIdentityClient issues "
            "for a user"
        )
    if text.lstrip().startswith("{"):
        return "use the bare JWT, which is the 'token' part of this response"
    if text[:6].lower() == "bearer" or text != text.strip("\"'") or _WHITE_SPACE.search(text):
        return "use the bare JWT, without 'Bearer', quotes, spaces or line breaks"
    if text.startswith("eyJ"):
        return "it begins like one, but is cut short or changed; use the bare JWT as it was issued"
    if can_be_opaque:
        return "use the bare JWT, or text that an Authorization header can carry"
    if _ACCESS_KEY.fullmatch(text):
        return (
            "it looks like an access key. Use the bare JWT that CommunicationIdentityClient "
            "issues for a user"
        )
    return f"{_REMEDY}; or set undecodable_token_lifetime" if _B64TOKEN.fullmatch(text) else _REMEDY


def _refuse_expiry(expiry: object, what: str, remedy: str) -> NoReturn:
    if expiry is None:
        problem = "is missing"
    elif isinstance(expiry, (int, float)) and not isinstance(expiry, bool):
        problem = "is out of range for Unix seconds (milliseconds?)"
    else:
        problem = f"must be Unix seconds, not {_name(expiry)}"
    msg = f"{what} {problem}; {remedy}"
    raise ValueError(msg)


def _is_expiry(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value <= _LAST_EXPIRY  # false for NaN


def _name(value: object) -> str:
    return type(value).__name__


_encrypted_token_seen = False


def _warn_once_about_encrypted_token() -> None:
    global _encrypted_token_seen  # once per process, whichever credential is first
    if not _encrypted_token_seen:
        _encrypted_token_seen = True
        _LOGGER.warning(
            "The expiry of an encrypted token (JWE) cannot be read, so its lifetime is assumed to "
            "be %d seconds. Set undecodable_token_lifetime, or pass an AccessToken with its "
            "expires_on, to give the real one.",
            UNDECODABLE_TOKEN_LIFETIME_SECONDS,
        )
