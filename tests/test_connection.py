"""Connection strings, endpoints and the two arguments of a client."""

import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from azure.communication.common._connection import (
    as_key_credential,
    parse_access_key,
    parse_additional_hosts,
    parse_client_arguments,
    parse_connection_string,
    parse_endpoint,
)
from azure.core.credentials import AccessToken, AccessTokenInfo, AzureKeyCredential
from hypothesis import given
from hypothesis import strategies as st

ENDPOINT = "https://contoso.communication.azure.com"
KEY = "c2VjcmV0IG9mIDI5IGJ5dGVzLCB0d28gcGFkcyE9Pz8="
STRING = f"endpoint={ENDPOINT};accesskey={KEY}"


class SyncCredential:
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        raise NotImplementedError


class InfoCredential:
    def get_token_info(self, *scopes: str, **kwargs: Any) -> AccessTokenInfo:
        raise NotImplementedError


def error_of(call: Callable[[], object]) -> Exception:
    """Return the error that the call raises, having checked that nothing about it shows the key."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert len(str(error)) < 200
    shown = "".join(traceback.format_exception_only(error)) + repr(error)
    for start in range(len(KEY) - 5):
        assert KEY[start : start + 6] not in shown
    return error


@pytest.mark.parametrize(
    ("connection_string", "endpoint"),
    [
        (f"endpoint={ENDPOINT}/;accesskey={KEY}", ENDPOINT),
        (f"endpoint={ENDPOINT};accesskey={KEY}", ENDPOINT),
        (f"accesskey={KEY};endpoint={ENDPOINT}/", ENDPOINT),
        (f"Endpoint={ENDPOINT}/;AccessKey={KEY}", ENDPOINT),
        (f"ENDPOINT={ENDPOINT}/;ACCESSKEY={KEY};", ENDPOINT),
        (f"  endpoint = {ENDPOINT}/ ; accesskey = {KEY} ; ", ENDPOINT),
        (f"endpoint={ENDPOINT}/;accesskey={KEY}\n", ENDPOINT),
        (f"\tendpoint={ENDPOINT}/;accesskey={KEY}\r\n", ENDPOINT),
        (f"endpoint={ENDPOINT}/;\n  accesskey={KEY};\n", ENDPOINT),
        (f"endpoint=contoso.communication.azure.com/;accesskey={KEY}", ENDPOINT),
        (f"endpoint=contoso.communication.azure.com:8443;accesskey={KEY}", f"{ENDPOINT}:8443"),
        (f";;endpoint={ENDPOINT}/;;accesskey={KEY};;", ENDPOINT),
        (f"region=eu;endpoint={ENDPOINT}/;accesskey={KEY};region=us;x=", ENDPOINT),
        (f"endpoint={ENDPOINT}:8443/;accesskey={KEY}", f"{ENDPOINT}:8443"),
        (f"endpoint=https://127.0.0.1:5001;accesskey={KEY}", "https://127.0.0.1:5001"),
        (f"endpoint=https://[::1]:5001;accesskey={KEY}", "https://[::1]:5001"),
        (f"endpoint=HTTPS://Contoso.Example/;accesskey={KEY}", "HTTPS://Contoso.Example"),
    ],
)
def test_good_connection_strings_are_split(connection_string: str, endpoint: str) -> None:
    """Order, case, spaces, further parts and stray semicolons make no difference."""
    assert parse_connection_string(connection_string) == (endpoint, KEY)


@pytest.mark.parametrize(
    ("connection_string", "says"),
    [
        ("", "it has no endpoint"),
        (";", "it has no endpoint"),
        (f"endpoint=;accesskey={KEY}", "it has no endpoint"),
        (f"endpoint={ENDPOINT};accesskey= ;", "it has no accesskey"),
        (f"endpoint={ENDPOINT};accesskey={KEY};endpoint={ENDPOINT}", "it has endpoint twice"),
        (f"endpoint={ENDPOINT};accesskey={KEY};AccessKey={KEY}", "it has accesskey twice"),
        (f"endpoint=;endpoint={ENDPOINT};accesskey={KEY}", "it has endpoint twice"),
        (f"endpoint={ENDPOINT};{KEY.rstrip('=')}", "part 2 has no '='"),
        (f"endpoint={ENDPOINT};accesskey={KEY[:20]}\n{KEY[20:]}", "control characters"),
        (f"endpoint={ENDPOINT};other=a\nb;accesskey={KEY}", "control characters"),
        (f"endpoint={ENDPOINT};\x00accesskey={KEY}", "control characters"),
        (f"endpoint=//contoso.example;accesskey={KEY}", "must be https://<host>"),
        (f"endpoint=me@contoso.example;accesskey={KEY}", "must be https://<host>"),
        (f"{' ' * 4096}endpoint={ENDPOINT};accesskey={KEY}", "characters"),
        (f"endpoint=https://me:{KEY}@contoso.example;accesskey={KEY}", "without user name"),
        (f"endpoint={ENDPOINT}/chat;accesskey={KEY}", "without user name, path"),
        (f"endpoint={ENDPOINT}?x={KEY};accesskey={KEY}", "query"),
        (f"endpoint={ENDPOINT}/#f;accesskey={KEY}", "fragment"),
        (f"endpoint={ENDPOINT}:0;accesskey={KEY}", "port"),
        (f"endpoint={ENDPOINT}:65536;accesskey={KEY}", "port"),
        (f"endpoint={ENDPOINT}:x;accesskey={KEY}", "port"),
        (f"endpoint=https://;accesskey={KEY}", "must be https://<host>"),
        (f"endpoint={ENDPOINT};accesskey={KEY[:-1]}", "not a base64 access key"),
        (f"endpoint={ENDPOINT};accesskey={KEY}=", "not a base64 access key"),
        (f"endpoint={ENDPOINT};accesskey={KEY[:20]} {KEY[20:]}", "not a base64 access key"),
        (f"endpoint={ENDPOINT};accesskey=-_{KEY[2:]}", "not a base64 access key"),
        (f"endpoint={ENDPOINT};accesskey=é{KEY}", "not a base64 access key"),
        (f"endpoint={ENDPOINT};accesskey=====", "not a base64 access key"),
        (f"endpoint={ENDPOINT};accesskey={KEY[:40]}====", "not a base64 access key"),
    ],
)
def test_bad_connection_strings_are_refused_without_being_quoted(
    connection_string: str, says: str
) -> None:
    """The error names the argument and the fault, and holds no part of the key."""
    error = error_of(lambda: parse_connection_string(connection_string))
    assert type(error) is ValueError
    assert "connection_string" in str(error)
    assert says in str(error)


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (b"endpoint=x", "bytes: decode it"),
        (bytearray(b"endpoint=x"), "bytearray: decode it"),
        (5, "int"),
        ({"accesskey": KEY}, "dict"),
    ],
)
def test_a_connection_string_of_another_type_is_a_type_error(value: Any, came: str) -> None:
    """The error names the argument and the type that came."""
    error = error_of(lambda: parse_connection_string(value))
    assert str(error) == f"connection_string must be a str, not {came}"


def test_the_repr_of_a_parsed_connection_string_hides_the_key() -> None:
    """What is returned unpacks as a pair and may be logged."""
    parsed = parse_connection_string(f"endpoint={ENDPOINT};accesskey={KEY}")
    endpoint, access_key = parsed
    assert (endpoint, access_key) == (ENDPOINT, KEY)
    assert repr(parsed) == f"ConnectionString(endpoint='{ENDPOINT}', access_key=<hidden>)"
    assert KEY not in f"{parsed} {parsed!r}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://h",
        "https://a-b.c_d.example:65535",
        "https://10.0.0.1",
        "https://[fe80::1]:1",
        "hTTps://H:443",
    ],
)
def test_an_endpoint_comes_back_without_its_trailing_slash(endpoint: str) -> None:
    """Nothing else of it changes."""
    assert parse_endpoint(endpoint) == endpoint
    assert parse_endpoint(endpoint + "/") == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https:",
        "https://",
        "https:///",
        "https:/h",
        "http://h",
        "ftp://h",
        "h",
        "//h",
        " https://h",
        "https://h ",
        "https://h\n",
        "https://h//",
        "https://h/.",
        "https://h/?",
        "https://h#",
        "https://h\\@e",
        "https://u@h",
        "https://u:p@h",
        "https://h:",
        "https://h:-1",
        "https://h:99999",
        "https://h:000001",
        "https://h:٣",
        "https://.h",
        "https://h.",
        "https://h..i",
        "https://h%2ee",
        "https://bücher.example",
        "https://conto\u017fo.example",
        "https://[h]",
        "https://[::1",
        "https://::1",
        f"https://{'a' * 300}",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    """The message names the argument and shows the form."""
    error = error_of(lambda: parse_endpoint(endpoint, "resource_endpoint"))
    text, _, fault = str(error).partition("; ")
    assert text == (
        "resource_endpoint must be https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, without user name, path, query or fragment"
    )
    assert fault in ("", "it is empty", "https:// is missing", "it is not https", "it has a path")


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("", "; it is empty"),
        ("//h", "; https:// is missing"),
        ("ftp://h", "; it is not https"),
        (" https://h", "fragment"),
        ("HTTPS://h:x", "fragment"),
        ("https://h//", "; it has a path"),
        ("https://u@h/", "fragment"),
    ],
)
def test_the_fault_of_an_endpoint_is_named(endpoint: str, fault: str) -> None:
    """Where it is sure."""
    assert str(error_of(lambda: parse_endpoint(endpoint))).endswith(fault)


def test_an_endpoint_of_another_type_is_a_type_error() -> None:
    """The error names the argument and the type that came."""
    wrong: Any = b"https://h"
    error = error_of(lambda: parse_endpoint(wrong))
    assert str(error) == "endpoint must be a str, not bytes: decode it"


def test_without_a_credential_the_connection_string_yields_a_key_credential() -> None:
    """A client has one kind of key to deal with."""
    endpoint, credential = parse_client_arguments(f"endpoint={ENDPOINT}/;accesskey={KEY}")
    assert endpoint == ENDPOINT
    assert type(credential) is AzureKeyCredential
    assert credential.key == KEY


def test_a_key_beside_an_endpoint_becomes_a_key_credential() -> None:
    """A str is taken as the access key."""
    endpoint, credential = parse_client_arguments(f"{ENDPOINT}/", KEY)
    assert endpoint == ENDPOINT
    assert type(credential) is AzureKeyCredential
    assert credential.key == KEY


@pytest.mark.parametrize(
    "credential", [AzureKeyCredential(KEY), SyncCredential(), InfoCredential()]
)
def test_a_credential_beside_an_endpoint_is_handed_back(credential: Any) -> None:
    """The caller's own object comes back, because its key may be rotated."""
    endpoint, same = parse_client_arguments(f"{ENDPOINT}/", credential)
    assert endpoint == ENDPOINT
    assert same is credential


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ((f"{ENDPOINT}/", None), ValueError, "is an endpoint, so credential must not be None"),
        (("contoso",), ValueError, "connection_string_or_endpoint must be endpoint="),
        ((None,), TypeError, "not NoneType: is the setting it comes from missing?"),
        ((STRING.encode(),), TypeError, "must be a str, not bytes: decode it"),
        ((STRING, SyncCredential()), ValueError, "is a connection string, which contains its own"),
        ((None, KEY), TypeError, "connection_string_or_endpoint must be a str, not NoneType"),
        ((AzureKeyCredential(KEY), ENDPOINT), TypeError, "Are the arguments swapped?"),
        ((KEY, SyncCredential()), ValueError, "looks like an access key"),
        ((ENDPOINT, 5), TypeError, "credential must be a token credential or an access key"),
        ((ENDPOINT, KEY.encode()), TypeError, "not bytes: decode it"),
        ((ENDPOINT, ENDPOINT), ValueError, "is an endpoint, not an access key"),
        ((ENDPOINT, STRING), ValueError, "credential is a connection string"),
        ((ENDPOINT, ""), ValueError, "credential is not a base64 access key"),
        ((ENDPOINT, f"x{KEY}"), ValueError, "is not a base64 access key"),
        ((ENDPOINT, AzureKeyCredential(f"x{KEY}")), ValueError, "is not a base64 access key"),
        ((f"http{ENDPOINT[5:]}", KEY), ValueError, "must be https://<host>"),
        ((f"{ENDPOINT}/{KEY}", SyncCredential()), ValueError, "without user name, path"),
    ],
)
def test_client_arguments_that_do_not_fit_are_refused_without_being_quoted(
    arguments: tuple[Any, ...], kind: type[Exception], says: str
) -> None:
    """The error names the argument and what it has to be, and holds no part of the key."""
    error = error_of(lambda: parse_client_arguments(*arguments))
    assert type(error) is kind
    assert says in str(error)


def test_an_access_key_is_decoded() -> None:
    """The bytes are those that the base64 stands for."""
    assert parse_access_key("AAEC/v8=") == b"\x00\x01\x02\xfe\xff"


def test_an_access_key_of_another_type_is_a_type_error() -> None:
    """Bytes are not treated as text."""
    wrong: Any = KEY.encode()
    error = error_of(lambda: parse_access_key(wrong))
    assert str(error) == "access_key must be a str, not bytes: decode it"
    error = error_of(lambda: as_key_credential(wrong))
    assert str(error) == "access_key must be a str or an AzureKeyCredential, not bytes: decode it"


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (parse_endpoint, STRING.replace("endpoint", "x"), "endpoint is a connection string"),
        (parse_endpoint, KEY[:32], "endpoint must be https://<host>"),
        (parse_access_key, ENDPOINT, "access_key is an endpoint, not an access key"),
        (parse_access_key, f"{ENDPOINT}/", "access_key is an endpoint, not an access key"),
        (parse_access_key, STRING, "access_key is a connection string: use parse_connection_stri"),
        (as_key_credential, ENDPOINT, "access_key is an endpoint, not an access key"),
    ],
)
def test_what_belongs_elsewhere_is_recognized(
    parse: Callable[[str], object], text: str, says: str
) -> None:
    """The message says what it is, and how to pass it."""
    assert says in str(error_of(lambda: parse(text)))


HOSTS = [
    (["storage.example.com"], ("storage.example.com",)),
    ((".Example.com", "a.b"), (".example.com", "a.b")),
    ([".asm.skype.com", ".ams.gov.teams.microsoft.us"],) * 2,
    ([], ()),
]


@pytest.mark.parametrize(("hosts", "read"), HOSTS)
def test_additional_hosts_are_read(hosts: Any, read: Any) -> None:
    """Any sequence of host names, whose case makes no difference."""
    assert parse_additional_hosts(hosts) == tuple(read)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        "com",
        ".com",
        "localhost",
        ".example.com.",
        "example.com.",
        "..example.com",
        "a..com",
        "https://a.example.com",
        "//a.example.com",
        "a.example.com:443",
        "a.example.com/",
        "a.example.com/path",
        "me@example.com",
        "*.example.com",
        " a.example.com",
        "a.example.com\n",
        "b\u00fccher.example.com",
        "\u212aontoso.example.com",
        "conto\u017fo.example.com",
        "127.0.0.1",
        ".0.0.1",
        "[::1]",
        "a.example.com?x",
        "a.example.com#x",
        "a.example%2ecom",
        "a\\.example.com",
        f"{'a' * 300}.com",
    ],
)
def test_an_additional_host_is_a_host_with_a_dot_inside(host: str) -> None:
    """No service has a whole top-level domain."""
    error = error_of(lambda: parse_additional_hosts(["a.example.com", host]))
    assert type(error) is ValueError
    assert str(error).startswith("additional_hosts[1] must be a host name with a dot inside")


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (".example.com", "additional_hosts must be a list or tuple of host names, not str"),
        (b".example.com", "additional_hosts must be a list or tuple of host names, not bytes"),
        (None, "additional_hosts must be a list or tuple of host names, not NoneType"),
        ({".example.com"}, "additional_hosts must be a list or tuple of host names, not set"),
        ([b".example.com"], "additional_hosts[0] must be a str, not bytes"),
    ],
)
def test_additional_hosts_of_another_type_are_refused(hosts: Any, says: str) -> None:
    """A text would be taken letter by letter."""
    error = error_of(lambda: parse_additional_hosts(hosts))
    assert type(error) is TypeError
    assert str(error) == says


PIECES = [
    "endpoint",
    "accesskey",
    "=",
    "==",
    ";",
    "https://",
    "http://",
    "h",
    ".",
    ":443",
    "/",
    "@",
]
PIECES += ["?", "#", "[", "]", "127.0.0.1", " ", "\n", "\x00", "\\", "%", "é", "\ud800", KEY]
ANY_TEXT = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)


def endpoint_or_error(call: Callable[[], str]) -> str | ValueError:
    """What the call returns or raises; any error but a ValueError passes on and fails the test."""
    try:
        return call()
    except ValueError as error:
        return error


@given(ANY_TEXT, ANY_TEXT)
def test_no_text_makes_the_parsers_raise_anything_but_value_errors(first: str, second: str) -> None:
    """Whatever is accepted has the promised form, and no error keeps another one reachable."""
    for call in (
        lambda: parse_connection_string(first).endpoint,
        lambda: parse_client_arguments(first)[0],
        lambda: parse_client_arguments(first, second)[0],
        lambda: parse_endpoint(first),
    ):
        got = endpoint_or_error(call)
        if isinstance(got, ValueError):
            assert type(got) is ValueError
            assert got.__context__ is None
            assert KEY not in str(got)
        else:
            assert got.lower().startswith("https://")
            assert not set(got[8:]) & set("/@?#\\ ")


@pytest.mark.parametrize("parse", [parse_endpoint, parse_connection_string, parse_access_key])
@pytest.mark.parametrize("piece", ["a", "a.", "-", "[::", ":1", "=", ";", "endpoint=", "0"])
def test_a_megabyte_of_hostile_text_is_answered(parse: Callable[[str], Any], piece: str) -> None:
    """Parsing takes linear time: a quadratic parser would run into the suite's time-out here."""
    text = f"https://{piece * (1_000_000 // len(piece))}!"
    assert isinstance(endpoint_or_error(lambda: parse(text)), ValueError)


def test_reading_an_endpoint_does_not_import_azure_core() -> None:
    """A cold start loads azure-core only where a key credential is checked or created."""
    code = (
        "import importlib.machinery, importlib.util, sys\n"
        f"path = {sys.modules[parse_endpoint.__module__].__file__!r}\n"
        "spec = importlib.util.spec_from_file_location('connection', path)\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['connection'] = module\n"
        "spec.loader.exec_module(module)\n"
        f"module.parse_connection_string('endpoint={ENDPOINT};accesskey={KEY}')\n"
        "print([name for name in sys.modules if name.startswith('azure')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
