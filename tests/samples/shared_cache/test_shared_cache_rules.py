"""The rules of the shared token cache, as plain functions, and what it makes of its arguments."""

import pytest
from cryptography.fernet import Fernet

from scaffolding import make_token
from shared_token_cache import (
    Given,
    Record,
    SharedTokenCache,
    digest,
    is_answer,
    read_keys,
    refresh_on,
    seal,
    unseal,
)

OLD, NEW = digest("old"), digest("new")


@pytest.mark.parametrize(
    ("life", "window", "expected"),
    [(3600, 120, 4480), (3600, 600, 4000), (240, 120, 1120), (100, 120, 1050), (-10, 120, 995)],
)
def test_refresh_window(life: int, window: int, expected: float) -> None:
    """It opens so long before expiry, or at half of a shorter life; never after expiry by much."""
    assert refresh_on(1000 + life, 1000, window) == expected


@pytest.mark.parametrize(
    ("given", "refused", "instead_of", "now", "expected"),
    [
        pytest.param(None, None, None, 10, True, id="a newcomer takes what there is"),
        pytest.param(None, None, None, 20, False, id="but not in its refresh window"),
        pytest.param(Given(OLD, 5), None, None, 10, True, id="another one is an answer"),
        pytest.param(Given(NEW, 5), None, None, 10, False, id="the same one is none"),
        pytest.param(Given(OLD, 50), OLD, None, 10, False, id="another, as old as the refusal"),
        pytest.param(Given(OLD, 50), OLD, OLD, 10, True, id="one that replaced the refused one"),
        pytest.param(Given(OLD, 50), OLD, OLD, 20, False, id="the same in its refresh window"),
        pytest.param(Given(NEW, 50), NEW, NEW, 10, False, id="an issuer that repeats itself"),
    ],
)
def test_answer(
    given: Given | None, refused: str | None, instead_of: str | None, now: float, expected: bool
) -> None:
    """A refresher returns what is fresh, is not what it returned before, and is no older than the
    refusal that it is asked for.
    """
    record = Record("key", "new", 30, 20, instead_of)
    assert is_answer(record, given, refused, now) is expected


def test_sealed_record() -> None:
    """What is sealed shows nothing of the token, and opens with any of the keys."""
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    record = Record("key", make_token(4_000_000_000), 4_000_000_000, 3_999_999_880.5, OLD)
    value = seal(read_keys(f"{first}, {second}"), record)
    assert b"eyJ" not in value
    assert unseal(read_keys(first), "key", value) == record
    assert unseal(read_keys(f"{second},{first}"), "key", value) == record
    assert unseal(read_keys(second), "key", value) is None


def test_value_that_is_not_ours() -> None:
    """What was altered, moved to another key, or made by another version is nothing."""
    keys = read_keys(Fernet.generate_key().decode())
    value = seal(keys, Record("key", "token", 30, 20, None))
    altered = value[:40] + (b"A" if value[40:41] != b"A" else b"B") + value[41:]
    others = [altered, b"", b"\xff", b"eyJ.eyJ.c2ln", keys.encrypt(b"[]"), keys.encrypt(b"{")]
    assert [unseal(keys, "key", other) for other in others] == [None] * len(others)
    assert unseal(keys, "another key", value) is None


def test_record_does_not_show_its_token() -> None:
    """A traceback that prints its locals has no token of ours."""
    assert "secret" not in repr(Record("key", "secret", 30, 20, None))


@pytest.mark.parametrize("keys", ["", "short", f"{Fernet.generate_key().decode()},c2VjcmV0"])
def test_bad_keys(keys: str) -> None:
    """The error says what they must be, and shows none, not even by its cause."""
    with pytest.raises(ValueError, match="keys must be Fernet keys") as caught:
        SharedTokenCache("redis://localhost", keys)
    assert not keys or keys not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["localhost", "redis://:pass/word@localhost:6379"])
def test_bad_url(url: str) -> None:
    """The error shows no part of it, for that may be the password."""
    with pytest.raises(ValueError, match="url must be one that redis-py can read") as caught:
        SharedTokenCache(url, Fernet.generate_key().decode())
    assert "pass'" not in str(caught.value)
    assert caught.value.__suppress_context__
