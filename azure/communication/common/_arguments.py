"""The three forms of the credential, told apart by their arguments."""

from typing import Any

LONGEST_LIFETIME_SECONDS = 100 * 365 * 24 * 3600


def is_entra_form(
    token: object,
    token_refresher: object,
    proactive_refresh: bool,
    undecodable_token_lifetime: object,
    entra: dict[str, Any],
    pipeline_options: dict[str, Any],
) -> bool:
    """Tell which form of the credential the arguments ask for, and refuse any mixture.

    :raises TypeError: If the arguments make none of the three forms; the message names them.
    :raises ValueError: If ``undecodable_token_lifetime`` is no time.
    """
    given = [name for name, value in entra.items() if value is not None]
    if given:
        own = {
            "token": token,
            "token_refresher": token_refresher,
            "undecodable_token_lifetime": undecodable_token_lifetime,
        }
        mixed = [name for name, value in own.items() if value is not None]
        if mixed:
            msg = f"{mixed[0]} cannot be combined with {given[0]}: a credential has one source"
            raise TypeError(msg)
        for name in ("resource_endpoint", "token_credential"):
            if name not in given:
                msg = f"{name} is missing: {given[0]} needs it for the exchange of Entra tokens"
                raise TypeError(msg)
        return True
    if pipeline_options:
        msg = (
            f"{next(iter(pipeline_options))!r} is no argument of the credential; it takes token, "
            "token_refresher, proactive_refresh and undecodable_token_lifetime, or "
            "resource_endpoint, token_credential, scopes and the options of azure-core's pipeline"
        )
        raise TypeError(msg)
    if callable(token):
        msg = "token is a function: pass it as token_refresher"
        raise TypeError(msg)
    if token_refresher is None:
        if token is None:
            msg = "pass a token, a token_refresher, or resource_endpoint and token_credential"
            raise TypeError(msg)
        if proactive_refresh:
            msg = "proactive_refresh needs a token_refresher: a static token cannot be refreshed"
            raise TypeError(msg)
    elif not callable(token_refresher):
        msg = f"token_refresher must be callable, not {type(token_refresher).__name__}"
        raise TypeError(msg)
    if undecodable_token_lifetime is not None:
        if isinstance(undecodable_token_lifetime, bool) or not isinstance(
            undecodable_token_lifetime, (int, float)
        ):
            found = type(undecodable_token_lifetime).__name__
            msg = f"undecodable_token_lifetime must be a number of seconds, not {found}"
            raise TypeError(msg)
        if not 1 <= undecodable_token_lifetime <= LONGEST_LIFETIME_SECONDS:
            msg = "undecodable_token_lifetime must be at least 1 second, and at most 100 years"
            raise ValueError(msg)
    return False
