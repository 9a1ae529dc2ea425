"""From what users and refreshers hand over to a token with an expiry.

A Communication token is a JWT, and its ``exp`` claim (RFC 7519, section 4.1.4) is all that a client
needs of it. The signature is never checked: the client holds no key, and the service checks it.
A JWE (RFC 7516) can be read by the service alone, so its life has to be assumed.

Nothing here puts a token into an error, so PyJWT's own messages, which may quote it, are dropped.
"""

import json
import logging
import re
from datetime import datetime
from typing import Any, TypeAlias

from azure.core.credentials import AccessToken, AccessTokenInfo

_LOGGER = logging.getLogger(__name__)

TokenLike: TypeAlias = str | AccessToken | AccessTokenInfo

UNDECODABLE_TOKEN_LIFETIME_SECONDS = 600  # what the JavaScript package assumes
_LAST_EXPIRY = 253_402_300_799  # 9999-12-31T23:59:59Z; far beyond it, sums with the time overflow

_ISO_8601 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.,][0-9]+)?"
    r"(?:[Zz]|([+-][0-9]{2})(?::?([0-9]{2}))?)?"
)

_SEGMENT = "[A-Za-z0-9_-]"
_JWS = re.compile(rf"{_SEGMENT}+\.{_SEGMENT}+\.{_SEGMENT}*")
_JWE = re.compile(rf"({_SEGMENT}+)\.{_SEGMENT}*\.{_SEGMENT}*\.{_SEGMENT}*\.{_SEGMENT}*")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what an Authorization header can carry, RFC 6750

_REMEDY = (
    "pass the bare JWT, which is the 'token' part of the identity service's response, without "
    "'Bearer', quotes or line breaks; for a token of another form, pass an AccessToken with its "
    "expires_on, or set undecodable_token_lifetime"
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
    :param undecodable_token_lifetime: Life in seconds of a token whose expiry cannot be read. If it
        is ``None``, only an encrypted token (JWE) may be unreadable, and lives for 600 seconds.
    :type undecodable_token_lifetime: float or None
    :param str source: What the value is called in an error, for example ``"token"``.
    :return: The token, with ``expires_on`` in Unix seconds.
    :rtype: ~azure.core.credentials.AccessToken
    :raises TypeError: If the value is none of the three.
    :raises ValueError: If the token is empty or its expiry cannot be read.
    """
    if isinstance(value, str):
        expires_on = _read_expiry(value, now, undecodable_token_lifetime, source)
        return RedactedAccessToken(value, expires_on)
    if isinstance(value, (AccessToken, AccessTokenInfo)):
        if not isinstance(value.token, str):
            msg = f"{source}: the 'token' of an AccessToken must be a str, not {_name(value.token)}"
            raise TypeError(msg)
        if not value.token or not value.token.isascii() or not value.token.isprintable():
            msg = f"{source}: the 'token' of an AccessToken must be printable ASCII; {_REMEDY}"
            raise ValueError(msg)
        expiry: Any = value.expires_on
        if isinstance(expiry, str):  # what azure-communication-identity puts there
            expiry = read_time(expiry) or expiry
        expires_on = _check_expiry(expiry, source, "expires_on")
        return RedactedAccessToken(value.token, expires_on)
    msg = f"{source} must be a str, an AccessToken or an AccessTokenInfo, not {_name(value)}"
    raise TypeError(msg)


def read_time(text: object) -> int | None:
    """Return a time in ISO 8601 as Unix seconds, rounded down, or None if it is none.

    ``datetime.fromisoformat`` takes neither seven digits nor ``Z`` before Python 3.11. A time
    without an offset is taken as UTC.
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
    return seconds if seconds > 0 else None  # .NET's unset time is in the year 1


def _read_expiry(token: str, now: float, lifetime: float | None, source: str) -> int:
    if _JWS.fullmatch(token):
        exp = _claims(token).get("exp")
        if lifetime is None or _is_expiry(exp):
            return _check_expiry(exp, source, "'exp' claim")
    elif _is_encrypted(token):
        if lifetime is None:
            _warn_once_about_encrypted_token()
            lifetime = UNDECODABLE_TOKEN_LIFETIME_SECONDS
    elif lifetime is None or not _B64TOKEN.fullmatch(token):
        msg = f"{source} is not a JWT ({len(token)} characters): {_REMEDY}"
        raise ValueError(msg)
    return int(now + lifetime)


def _claims(token: str) -> dict[str, Any]:
    import jwt  # loads cryptography where it is installed, 50 ms that no import should cost

    try:
        return jwt.decode(token, options={"verify_signature": False})
    except (jwt.exceptions.PyJWTError, ValueError, RecursionError):
        return {}


def _is_encrypted(token: str) -> bool:
    match = _JWE.fullmatch(token)
    if match is None:
        return False
    from jwt.utils import base64url_decode

    try:
        header = json.loads(base64url_decode(match[1]))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "enc" in header


def _check_expiry(expiry: Any, source: str, name: str) -> int:
    if _is_expiry(expiry):
        return int(expiry)
    found = "is missing" if expiry is None else f"({_name(expiry)}) is none"
    msg = f"{source}: Unix seconds were expected as its {name}, which {found}; {_REMEDY}"
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
            "The expiry of an encrypted token (JWE) cannot be read, so it is taken to live for %d "
            "seconds. Set undecodable_token_lifetime, or pass an AccessToken with its expires_on, "
            "to say how long it really lives.",
            UNDECODABLE_TOKEN_LIFETIME_SECONDS,
        )


def load_decoder() -> None:
    """Load what reading a JWT needs, on the thread that calls this."""
    import jwt  # noqa: F401
