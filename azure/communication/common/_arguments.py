"""The three forms of the credential, distinguished by their arguments."""

from typing import Any, NamedTuple

LONGEST_LIFETIME_SECONDS = 100 * 365 * 24 * 3600

_KEYWORDS = (
    "token",
    "token_refresher",
    "proactive_refresh",
    "undecodable_token_lifetime",
    "resource_endpoint",
    "token_credential",
    "scopes",
)


class Arguments(NamedTuple):
    """The checked arguments of a credential. It has at most one source of tokens."""

    token: Any
    token_refresher: Any
    proactive_refresh: bool
    undecodable_token_lifetime: float | None
    entra: dict[str, Any] | None
    """The arguments of the Entra exchange, if that is the source."""


def read_arguments(
    token: object,
    token_refresher: object,
    proactive_refresh: bool,
    undecodable_token_lifetime: Any,
    resource_endpoint: object,
    token_credential: object,
    scopes: object,
    pipeline_options: dict[str, Any],
) -> Arguments:
    """Determine which form of the credential the arguments ask for, and refuse any mixture.

    :return: The arguments.
    :rtype: Arguments
    :raises TypeError: If the arguments match none of the three forms; the message names them.
    :raises ValueError: If ``undecodable_token_lifetime`` is out of range.
    """
    entra = None
    is_entra = not (resource_endpoint is None and token_credential is None and scopes is None)
    if is_entra or pipeline_options:
        if pipeline_options:
            _check_spelling(pipeline_options)
        entra = {
            "resource_endpoint": resource_endpoint,
            "token_credential": token_credential,
            "scopes": scopes,
        }
        given = [name for name, value in entra.items() if value is not None]
        if not is_entra:
            msg = (
                f"{next(iter(pipeline_options))!r} is not a valid argument: pass token, "
                "token_refresher, proactive_refresh, undecodable_token_lifetime; or "
                "resource_endpoint, token_credential, scopes, pipeline options"
            )
            raise TypeError(msg)
        own = {
            "token": token,
            "token_refresher": token_refresher,
            "undecodable_token_lifetime": undecodable_token_lifetime,
        }
        for name, value in own.items():
            if value is not None:
                msg = f"{name} cannot be combined with {given[0]}: a credential has one source"
                raise TypeError(msg)
        for name in ("resource_endpoint", "token_credential"):
            if name not in given:
                msg = f"{name} is missing: pass it with {given[0]}, for the Entra token exchange"
                raise TypeError(msg)
        entra.update(pipeline_options)
    elif callable(token):
        msg = "token is a function: pass it as token_refresher"
        raise TypeError(msg)
    elif token_refresher is None:
        if token is None:
            msg = (
                "the credential has no source of tokens: pass token, token_refresher, or "
                "resource_endpoint and token_credential"
            )
            raise TypeError(msg)
        if proactive_refresh:
            msg = "proactive_refresh needs a token_refresher: a static token cannot be refreshed"
            raise TypeError(msg)
    elif not callable(token_refresher):
        found = type(token_refresher).__name__
        msg = (
            f"token_refresher must be a function, not its result ({found}): pass the function "
            "without calling it"
        )
        raise TypeError(msg)
    if undecodable_token_lifetime is not None:
        _check_lifetime(undecodable_token_lifetime)
    return Arguments(
        token, token_refresher, bool(proactive_refresh), undecodable_token_lifetime, entra
    )


def _check_spelling(pipeline_options: dict[str, Any]) -> None:
    """Refuse a misspelt keyword, which azure-core's pipeline would ignore."""
    import difflib  # not needed otherwise

    for name in pipeline_options:
        for known in difflib.get_close_matches(name, _KEYWORDS, 1, 0.8):
            msg = f"{name!r} is not a valid argument: did you mean {known!r}?"
            raise TypeError(msg)


def _check_lifetime(seconds: Any) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        found = type(seconds).__name__
        msg = f"undecodable_token_lifetime must be a number of seconds, not {found}"
        raise TypeError(msg)
    if not 1 <= seconds <= LONGEST_LIFETIME_SECONDS:
        msg = "undecodable_token_lifetime must be at least 1 second and at most 100 years"
        raise ValueError(msg)
