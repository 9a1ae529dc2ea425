"""One credential for each of many users, of which a bounded number is kept.

A back end that acts for many users needs one credential for each, or it would issue a token for
each request. It cannot keep all of them forever, either. This keeps those that were used last::

    credentials = UserCredentials(create_credential, size=10_000)
    credential = credentials.get(user_id)

It works for the credentials of :mod:`azure.communication.common` and of its ``aio``, in threads, on
an event loop and after a fork, since making a credential sends nothing.

A credential that has to make room is not closed, because a request may be using it. It works until
nobody holds it, and is then gone; if it refreshes proactively, that ends, too.
"""

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["UserCredentials"]

C = TypeVar("C")


class UserCredentials(Generic[C]):
    """The credentials of the users who were seen last.

    :param create: Makes the credential of the user with this id. It must not wait for anything.
    :type create: ~collections.abc.Callable[[str], C]
    :keyword int size: How many to keep. Each takes about three kilobytes, with its token.
    """

    def __init__(self, create: Callable[[str], C], *, size: int) -> None:
        self._create = lru_cache(size)(create)
        self._lock = Lock()  # or threads that come first at the same time would make one each

    def get(self, user_id: str) -> C:
        """Return the credential of a user, the same one as long as it is kept."""
        with self._lock:
            return self._create(user_id)

    def clear(self) -> None:
        """Keep none of them any longer."""
        self._create.cache_clear()
