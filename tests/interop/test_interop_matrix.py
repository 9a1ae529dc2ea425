"""The published Communication packages take our identifiers, credentials and policies for theirs.

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

ALL = sorted(PACKAGES | OTHERS)


@pytest.mark.parametrize("package", ALL)
def test_matrix(package):
    """Requests with ours are those with theirs, and what comes back is equal to ours."""
    print()
    rows = [*matrix.rows(package)]
    print(*rows, sep="\n")
    if package in PACKAGES:
        assert len(rows) == 2 * len(matrix.KINDS)
        assert "equal: " in rows[0]


@pytest.mark.parametrize("package", ALL)
def test_every_method_is_tried(package):
    """Each method whose signature names an identifier is in the matrix, in this version too."""
    named = set()
    clients = module_of(package, aio=True)  # whose signatures all have types
    for client in clients.__all__:
        for name, method in inspect.getmembers(getattr(clients, client), inspect.isfunction):
            types = str(inspect.signature(method))
            if not name.startswith("_") and re.search(r"(Identifier|[a-z]Participant)\b", types):
                named.add((client, name))
    tried = {(one.client, one.method) for one in PACKAGES.get(package, [])}
    assert named <= tried
    assert bool(tried) is (package in PACKAGES)


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
