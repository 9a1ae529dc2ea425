"""Errors: what is raised, and copies of what refreshers raise that are safe to keep.

An exception leads to more than it says: to its traceback, whose frames hold tokens, to a response
and its request with an Authorization header, to what was being handled when it was made. What a
credential keeps of a failure, or raises in another thread, is therefore a copy.
"""

import copy
import functools
import gc
from typing import TypeVar

from azure.core.exceptions import AzureError, ClientAuthenticationError

_AzureErrorT = TypeVar("_AzureErrorT", bound=AzureError)


def closed() -> RuntimeError:
    """Return the error of a closed credential."""
    return RuntimeError("The credential has been closed: create a new one")


def overdue(seconds: float) -> TimeoutError:
    """Return the error for those who waited for a refresh for longer than it may take."""
    msg = (
        f"Token refresh did not finish within {seconds} seconds: set shorter time-outs in "
        "token_refresher"
    )
    return TimeoutError(msg)


def asked_by_refresher() -> RuntimeError:
    """Return the error for a refresher that would wait for itself."""
    msg = (
        "token_refresher requested a token from the credential that it refreshes, which has no "
        "valid one: give the client that it uses another credential, for example the access key"
    )
    return RuntimeError(msg)


def detached(error: Exception) -> Exception:
    """Return a copy of an exception without its traceback, to raise elsewhere.

    Raising one object from several threads would make each of them lengthen the same traceback.
    This runs code that belongs to the user.
    """
    twin: Exception
    for duplicate in (copy.copy, _copy_without_constructor):
        try:
            twin = duplicate(error)
            is_like_it = type(twin) is type(error) and str(twin) == str(error)
            if is_like_it and twin is not error:
                break
        except Exception:  # noqa: BLE001, S112 - it cannot be copied this way, or not even printed
            continue
    else:
        twin = made(ClientAuthenticationError, _describe(error))
    set_field(twin, "__traceback__", None)
    notes = vars(twin).pop("__notes__", None)
    if isinstance(notes, list):
        vars(twin)["__notes__"] = list(notes)  # or a note on one would be a note on all
    return twin


def set_field(error: BaseException, name: str, value: object) -> None:
    """Set a field of an exception, even if its class refuses that, as a frozen dataclass does."""
    object.__setattr__(error, name, value)


_LONGEST_ATTRIBUTE = 256  # one of a JSONDecodeError, for example, is the whole body


def to_keep(error: Exception, depth: int = 2) -> Exception:
    """Return a copy of an exception that refers to plain values only.

    It has the class and the arguments, numbers and short texts among the attributes, and such
    copies of the exceptions there. Everything else is dropped, because any object might refer to a
    frame, or to a request with its Authorization header; so the text, which some classes make of
    such objects, can be shorter.
    """
    try:
        twin = detached(error)
        text = str(twin)
        _clear(twin, depth)
        if _says(twin) is None:  # the class makes its text from what was dropped
            twin = _with_text(twin, text)
        if _is_clear(twin):
            return twin
    except Exception:  # noqa: BLE001, S110 - what the user's class does with its fields
        pass
    return made(ClientAuthenticationError, _describe(error))


def _clear(error: Exception, depth: int) -> None:
    def kept(value: object, longest: float, otherwise: object) -> object:
        if isinstance(value, Exception) and depth:  # such as azure-core's inner_exception
            return to_keep(value, depth - 1)
        is_short = not isinstance(value, str) or len(value) <= longest
        is_plain = isinstance(value, (str, int, float, type(None))) and is_short
        return value if is_plain else otherwise

    for name, value in vars(error).items():
        if name != "__notes__":
            vars(error)[name] = kept(value, _LONGEST_ATTRIBUTE, None)
    args = tuple(kept(arg, float("inf"), type(arg).__name__) for arg in error.args)
    set_field(error, "args", args)


def _is_clear(error: Exception) -> bool:
    """Return whether all that it refers to is plain; slots, for example, cannot be cleared."""
    for field in gc.get_referents(error):
        is_cleared = field is error.args or field is vars(error)
        if not is_cleared and not isinstance(field, (type, str, int, float, type(None))):
            return False
    return True


def _with_text(error: Exception, text: str) -> Exception:
    """Return the same exception with a text that does not depend on its fields."""
    kind = _with_fixed_text(type(error))  # type: ignore[arg-type]  # a class is hashable
    twin = kind.__new__(kind, *error.args)
    vars(twin).update(vars(error), _text=text)
    return twin


@functools.lru_cache
def _with_fixed_text(kind: type[Exception]) -> type[Exception]:
    members = {"__module__": kind.__module__, "__str__": lambda self: vars(self)["_text"]}
    return type(kind.__name__, (kind,), members)


def _copy_without_constructor(error: Exception) -> Exception:
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin


def made(kind: type[_AzureErrorT], message: str) -> _AzureErrorT:
    """Return a new error without a reference to any exception that is being handled."""
    error = kind(message)
    error.exc_type = error.exc_value = error.exc_traceback = None
    error.exc_msg = message
    return error


def _describe(error: Exception) -> str:
    return ": ".join(filter(None, (type(error).__name__, _says(error))))


def _says(error: Exception) -> str | None:
    """Return the text of an exception, or None if its class has a mistake."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the user's
        return None
