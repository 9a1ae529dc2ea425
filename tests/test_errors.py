"""What is raised or kept in place of an exception of the refresher's."""

from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

from scaffolding import errors


class Awkward(Exception):
    """An exception that copying cannot construct."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a}-{b}")


class Changing(Exception):
    """An exception whose copy would say something else."""

    def __init__(self, text: str) -> None:
        super().__init__(f"<{text}>")


def raised(failure: Exception) -> Any:
    """Return an exception that has been raised."""
    try:
        raise failure
    except Exception as exc:
        return exc


@pytest.mark.parametrize("failure", [ValueError("x"), OSError(2, "no"), HttpResponseError("busy")])
def test_a_detached_exception_is_a_copy_without_a_traceback(failure: Exception) -> None:
    """Same class, text and attributes; another object."""
    original = raised(failure)
    twin = errors.detached(original)
    assert twin is not original
    assert type(twin) is type(original)
    assert str(twin) == str(original)
    assert vars(twin) == vars(original)
    assert twin.__traceback__ is None
    assert original.__traceback__ is not None


def test_a_copy_has_notes_of_its_own() -> None:
    """What is noted on one is not noted on the others."""
    original = ValueError("x")
    vars(original)["__notes__"] = ["first"]
    twin = errors.detached(original)
    vars(twin)["__notes__"].append("second")
    assert vars(twin)["__notes__"] == ["first", "second"]
    assert vars(original)["__notes__"] == ["first"]


@pytest.mark.parametrize("failure", [Awkward("1", "2"), Changing("x")])
def test_an_exception_that_its_constructor_cannot_copy_keeps_its_class(failure: Exception) -> None:
    """Its callers' except clauses are written for it."""
    twin = errors.detached(raised(failure))
    assert twin is not failure
    assert type(twin) is type(failure)
    assert str(twin) == str(failure)


class Unprintable(Exception):
    """An exception with a mistake in it."""

    def __str__(self) -> str:
        raise KeyError


def test_an_exception_that_cannot_be_copied_is_told_about() -> None:
    """Another class then says what happened."""
    twin = errors.detached(raised(Unprintable()))
    assert type(twin) is ClientAuthenticationError
    assert str(twin) == "Unprintable"


def test_an_error_that_is_kept_leads_to_no_frame_request_or_other_error() -> None:
    """Its class, its text and its plain attributes stay."""
    inner = raised(OSError(2, "no"))
    try:
        raise HttpResponseError("down", error=inner) from inner
    except HttpResponseError as exc:
        error = exc
    error.response = type("Response", (), {"headers": {"Authorization": "Bearer x"}})()
    error.args = (*error.args, inner)
    kept: Any = errors.to_keep(error)
    assert (type(kept), str(kept.message), kept.response) == (HttpResponseError, "down", None)
    assert (kept.exc_traceback, kept.__traceback__, kept.__cause__) == (None, None, None)
    assert kept.inner_exception is not inner
    assert (str(kept.inner_exception), kept.inner_exception.__traceback__) == (str(inner), None)
    assert kept.args[-1].__traceback__ is None
    assert error.exc_traceback is not None or error.__traceback__ is not None
