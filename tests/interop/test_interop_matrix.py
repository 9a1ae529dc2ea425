"""The published Communication packages accept our identifiers, credentials and policies.

Run with ``-s``, the tests print the matrix, as ``python tests/interop/matrix.py`` does.
"""

import asyncio
import inspect
import re

import pytest
from azure.communication.common import get_authentication_policy
from azure.core.exceptions import AzureError

from interop import matrix
from interop.matrix import OTHERS, PACKAGES, module_of, settle
from local_service import LocalService

# Call Automation and Rooms call what Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:azure")


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_matrix(package):
    """Requests with ours are those with theirs, and what comes back is equal to ours."""
    print()
    rows = [*matrix.rows(package)]
    print(*rows, sep="\n")
    assert len(rows) == 2 * len(matrix.KINDS)
    assert "equal: " in rows[0]


def clients_of(package, *, aio):
    module = module_of(package, aio=aio)
    return [getattr(module, name) for name in module.__all__ if name.endswith("Client")]


def methods_with_identifiers(package):
    """Return the methods whose signatures name an identifier, with the names of their clients."""
    return {
        (client.__name__, name)
        for client in clients_of(package, aio=True)  # whose signatures all have types
        for name, method in inspect.getmembers(client, inspect.isroutine)
        if not name.startswith("_")
        if re.search(r"(Identifier|[a-z]Participant)\b", str(inspect.signature(method)))
    }


def takers_of_user_credentials(package):
    """Return the clients whose construction mentions a user's credential, sync and aio."""
    return [
        client
        for aio in (False, True)
        for client in clients_of(package, aio=aio)
        if "CommunicationTokenCredential"
        in f"{inspect.signature(client.__init__)} {client.__doc__} {client.__init__.__doc__}"
    ]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_method_is_tried(package):
    """Each method whose signature names an identifier is in the matrix, in this version too."""
    named = methods_with_identifiers(package)
    assert named
    assert named <= {(one.client, one.method) for one in PACKAGES[package]}


INSTEAD = {
    "email": "e-mail addresses",
    "jobrouter": "ids of jobs and workers that the application chooses",
    "messages": "recipients as text",
    "phonenumbers": "phone numbers as text",
    "sms": "phone numbers as text",
}


@pytest.mark.parametrize("package", sorted(OTHERS))
def test_packages_without_identifiers(package):
    """A package that is not tried accepts none, nor a user's credential, and its row says so."""
    assert clients_of(package, aio=False)
    assert clients_of(package, aio=True)
    assert methods_with_identifiers(package) == set()
    assert takers_of_user_credentials(package) == []
    (row,) = matrix.rows(package)
    print(f"\n{row}")
    assert row.endswith(f"takes {INSTEAD[package]}, and no user credential")


def test_takers_of_user_credentials_are_found():
    """Those are the clients of chat, so that finding none in another package means something."""
    names = [client.__name__ for client in takers_of_user_credentials("chat")]
    assert names == ["ChatClient", "ChatThreadClient"] * 2


CALLS = {
    "callautomation": ("CallAutomationClient", lambda one: one.get_recording_properties("r:1/ü")),
    "email": ("EmailClient", lambda one: one.begin_send({"senderAddress": "é@contoso.example"})),
    "identity": ("CommunicationIdentityClient", lambda one: one.create_user()),
    "jobrouter": ("JobRouterClient", lambda one: one.get_job("a b+c")),
    "messages": ("NotificationMessagesClient", lambda one: one.send({"kind": "text"})),
    "phonenumbers": (
        "PhoneNumbersClient",
        lambda one: one.get_purchased_phone_number("+14255550123"),
    ),
    "rooms": ("RoomsClient", lambda one: one.list_participants("r")),
    "sms": ("SmsClient", lambda one: one.send("+14255550100", "+14255550123", "é")),
}


@pytest.fixture(scope="module")
def service():
    with LocalService(echo=True) as service:
        yield service


async def try_key(service, package, *, aio, **options):
    """Send one request with a client that has a wrong key; return the status of its answer."""
    client_name, call = CALLS[package]
    client = getattr(module_of(package, aio=aio), client_name)(
        service.endpoint, matrix.KEY, retry_total=0, **service.client_options(), **options
    )
    try:
        await settle(call(client))
    except (AzureError, KeyError):
        pass  # the answer only says what was received
    finally:
        await settle(client.close()) if hasattr(client, "close") else None
    return service.requests[-1].status


@pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
@pytest.mark.parametrize("package", CALLS)
def test_access_key(service, package, aio):
    """What our policy signs in a package's pipeline is right as it arrives, whatever the path.

    The hook comes after the package's own policy, and the client's own key is a wrong one.
    """
    policy = get_authentication_policy(service.endpoint, service.access_key)
    status = asyncio.run(try_key(service, package, aio=aio, custom_hook_policy=policy))
    assert status in (200, 201)
    assert asyncio.run(try_key(service, package, aio=aio)) == 401
