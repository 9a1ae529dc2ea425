"""What stands in each SDK's ``_shared`` folder once the SDK depends on this package.

The text below is all of it. The tests write it in place of the published folders, and the migration
guide shows it to maintainers, word by word. Nothing else of an SDK changes.
"""

# The second name is in pickles of Teams apps that the published SDKs have made.
MODELS = """\
from azure.communication.common import *

_botbackcompatdict = dict
"""

# Two SDKs still offer a name that is older than Teams apps.
MODELS_WITH_BOT = """\
from azure.communication.common import *
from azure.communication.common import MicrosoftTeamsAppIdentifier as _MicrosoftBotIdentifier

_botbackcompatdict = dict
"""

UTILS = """\
from azure.communication.common import parse_connection_string as parse_connection_str
"""

# Repeatable requests say when they were sent first, in the form of RFC 1123.
UTILS_WITH_TIME = """\
from email.utils import formatdate

from azure.communication.common import parse_connection_string as parse_connection_str


def get_current_utc_time():
    return formatdate(usegmt=True)
"""

POLICY = """\
from azure.communication.common import HMACCredentialsPolicy
"""

AUTH_POLICY_UTILS = """\
from azure.communication.common import aio
from azure.communication.common import get_authentication_policy as get_sync_policy


def get_authentication_policy(endpoint, credential, decode_url=False, is_async=False):
    get_policy = aio.get_authentication_policy if is_async else get_sync_policy
    return get_policy(endpoint, credential)
"""

# Recordings are on other hosts of the service; this SDK has their names already.
AUTH_POLICY_UTILS_WITH_RECORDINGS = """\
from azure.communication.common import aio
from azure.communication.common import get_authentication_policy as get_sync_policy

from ..recording_url_validator import ALLOWED_HOST_SUFFIXES


def get_authentication_policy(endpoint, credential, decode_url=False, is_async=False):
    get_policy = aio.get_authentication_policy if is_async else get_sync_policy
    return get_policy(endpoint, credential, additional_hosts=ALLOWED_HOST_SUFFIXES)
"""

USER_CREDENTIAL = """\
from azure.communication.common import CommunicationTokenCredential
"""

USER_CREDENTIAL_ASYNC = """\
from azure.communication.common.aio import CommunicationTokenCredential
"""

SIGNING = {"utils.py": UTILS, "auth_policy_utils.py": AUTH_POLICY_UTILS}

ADAPTERS: dict[str, dict[str, str]] = {
    "callautomation": {
        "models.py": MODELS_WITH_BOT,
        "utils.py": UTILS,
        "auth_policy_utils.py": AUTH_POLICY_UTILS_WITH_RECORDINGS,
    },
    "chat": {
        "models.py": MODELS,
        "user_credential.py": USER_CREDENTIAL,
        "user_credential_async.py": USER_CREDENTIAL_ASYNC,
    },
    "email": SIGNING,
    "identity": {"models.py": MODELS, **SIGNING},
    "jobrouter": {"utils.py": UTILS, "policy.py": POLICY},
    "messages": SIGNING,
    "phonenumbers": SIGNING,
    "rooms": {"models.py": MODELS_WITH_BOT, **SIGNING},
    "sms": {"utils.py": UTILS_WITH_TIME, "auth_policy_utils.py": AUTH_POLICY_UTILS},
}

# The SDKs' own tests import more of ``_shared`` than the SDKs do: what is public here, under old
# names, and helpers for tokens and times. A maintainer keeps these, if at all, with the tests.
FOR_THEIR_TESTS: dict[str, str] = {
    "models.py": MODELS,
    "policy.py": POLICY,
    "user_credential.py": USER_CREDENTIAL,
    "user_credential_async.py": USER_CREDENTIAL_ASYNC,
    "utils.py": UTILS_WITH_TIME,
}
TEST_HELPERS = """
import calendar
import time
from azure.communication.common import CommunicationTokenCredential

def create_access_token(token):
    return CommunicationTokenCredential(token).get_token()


def get_current_utc_as_int():
    return int(time.time())

def _convert_datetime_to_utc_int(moment):
    return calendar.timegm(moment.utctimetuple())
"""


def count_lines(sdk: str) -> int:
    """Count the lines of an SDK's adapter, blank ones apart."""
    return sum(bool(line) for text in ADAPTERS[sdk].values() for line in text.splitlines())
