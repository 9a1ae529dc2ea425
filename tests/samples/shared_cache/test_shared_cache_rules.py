"""The rules of the shared token cache, as plain functions, and what it makes of its arguments."""

import re

import pytest
from cryptography.fernet import Fernet

from scaffolding import make_token
from shared_token_cache import (
    Given,
    Record,
    SharedTokenCache,
    digest,
    is_answer,
    name_of,
    read_keys,
    refresh_on,
    seal,
    unseal,
)

KEY = Fernet.generate_key().decode()


@pytest.mark.parametrize(
    ("life", "window", "expected"),
    [(3600, 120, 4480), (3600, 600, 4000), (240, 120, 1120), (100, 120, 1050), (-10, 120, 995)],
)
def test_refresh_window(life: int, window: int, expected: float) -> None:
    """It opens so long before expiry, or at half of a shorter life; never after expiry by much."""
    assert refresh_on(1000 + life, 1000, window) == expected


def given(text: str, issued_on: float, refresh_on: float, asked_on: float = 99) -> Given:
    return Given(digest(text), issued_on, asked_on, refresh_on)


@pytest.mark.parametrize(
    ("given", "issued_on", "instead_of", "asked_on", "now", "expected"),
    [
        pytest.param(None, 100, None, 110, 110, True, id="a newcomer takes what there is"),
        pytest.param(None, 100, None, 150, 150, False, id="but not in its refresh window"),
        pytest.param(given("old", 50, 90), 100, None, 110, 110, True, id="a later one"),
        pytest.param(given("new", 50, 90), 100, None, 110, 110, False, id="the same one"),
        pytest.param(given("old", 101, 105), 100, None, 110, 110, False, id="an earlier one"),
        pytest.param(given("old", 100, 105), 100, None, 110, 110, False, id="one just as late"),
        pytest.param(given("old", 50, 120), 100, None, 110, 111, False, id="before the refusal"),
        pytest.param(given("old", 50, 120), 110, None, 110, 111, False, id="at the same time"),
        pytest.param(given("old", 50, 120), 111, None, 110, 111, True, id="after the refusal"),
        pytest.param(given("old", 50, 120), 100, "old", 110, 111, True, id="its replacement"),
        pytest.param(given("old", 50, 120, 100), 100, "old", 110, 111, True, id="at once"),
        pytest.param(given("old", 50, 120, 101), 100, "old", 110, 111, False, id="long replaced"),
        pytest.param(given("old", 50, 200), 100, "old", 150, 150, False, id="one in its window"),
        pytest.param(given("new", 50, 120), 100, "new", 110, 111, False, id="that repeats itself"),
    ],
)
def test_answer(
    given: Given | None,
    issued_on: float,
    instead_of: str | None,
    asked_on: float,
    now: float,
    expected: bool,
) -> None:
    """A refresher returns what is fresh and later than what it returned before or, when that was
    refused, later than the refusal, or issued in its place.
    """
    replaced = digest(instead_of) if instead_of else None
    record = Record("key", "new", 200, issued_on, replaced)  # half of its life is over at 150
    assert is_answer(record, given, asked_on, now) is expected


def test_sealed_record() -> None:
    """What is sealed shows nothing of the token, and opens with any of the keys."""
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    record = Record("key", make_token(4_000_000_000), 4_000_000_000, 3_999_900_000.5, digest("old"))
    value = seal(read_keys(f"{first}, {second}"), record)
    assert b"eyJ" not in value
    assert unseal(read_keys(first), "key", value) == record
    assert unseal(read_keys(f"{second},{first}"), "key", value) == record
    assert unseal(read_keys(second), "key", value) is None


def test_value_that_is_not_ours() -> None:
    """What was altered, or moved to another key, is nothing."""
    keys = read_keys(KEY)
    value = seal(keys, Record("key", "token", 30, 20.0, None))
    altered = value[:40] + (b"A" if value[40:41] != b"A" else b"B") + value[41:]
    others = [altered, b"", b"\xff", b"eyJ.eyJ.c2ln"]
    assert [unseal(keys, "key", other) for other in others] == [None] * len(others)
    assert unseal(keys, "another key", value) is None
    assert unseal(keys, "key", value) is not None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        '["key", "token", 30, 20.0]',
        '["key", "token", 30, 20.0, null, null]',
        '{"key": "key"}',
        '["key", 1, 30, 20.0, null]',
        '["key", null, 30, 20.0, null]',
        '["key", "\\ud800", 30, 20.0, null]',
        '["key", "t\u00f6ken", 30, 20.0, null]',
        '["key", "token", "30", 20.0, null]',
        '["key", "token", 30.5, 20.0, null]',
        '["key", "token", true, 20.0, null]',
        '["key", "token", NaN, 20.0, null]',
        '["key", "token", 1099511627776, 20.0, null]',
        f'["key", "token", {"9" * 400}, 20.0, null]',
        f'["key", "token", {"9" * 5000}, 20.0, null]',
        '["key", "token", 30, "20", null]',
        '["key", "token", 30, NaN, null]',
        '["key", "token", 30, Infinity, null]',
        '["key", "token", 30, -Infinity, null]',
        '["key", "token", 30, 0.0, null]',
        '["key", "token", 30, 30.0, null]',
        '["key", "token", 30, 20.0, 1]',
        '["key", "token", 30, 20.0, []]',
        "[" * 100_000,
    ],
)
def test_content_that_is_not_ours(content: str) -> None:
    """What was encrypted with our key is not trusted in any other way."""
    keys = read_keys(KEY)
    assert unseal(keys, "key", keys.encrypt(content.encode())) is None


def test_record_does_not_show_its_token() -> None:
    """A traceback that prints its locals shows none of our tokens."""
    assert "secret" not in repr(Record("key", "secret", 30, 20, None))


def test_name_is_keyed() -> None:
    """A guessed user id does not reveal the user's key, which depends on the last of our keys."""
    first, last = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    name = name_of(f"{first}, {last}", "8:acs:resource_user")
    assert re.fullmatch("acs-token:[0-9a-f]{64}", name)
    assert digest("8:acs:resource_user") not in name
    assert name_of(f"{KEY},{first},{last}", "8:acs:resource_user") == name
    assert name_of(first, "8:acs:resource_user") != name
    assert name_of(last, "8:acs:resource_other") != name


@pytest.mark.parametrize("keys", ["", "short", f"{Fernet.generate_key().decode()},c2VjcmV0"])
def test_bad_keys(keys: str) -> None:
    """The error says what they must be, and refers to none of them."""
    with pytest.raises(ValueError, match="keys must be Fernet keys") as caught:
        SharedTokenCache("redis://localhost", keys)
    assert not keys or keys not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["localhost", "redis://:pass/word@localhost:6379"])
def test_bad_url(url: str) -> None:
    """The error shows no part of it, which may be the password, and refers to none."""
    with pytest.raises(ValueError, match="url must be one that redis-py can read") as caught:
        SharedTokenCache(url, KEY)
    assert "pass'" not in str(caught.value)
    assert caught.value.__context__ is None
