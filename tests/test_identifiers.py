"""The identifier models, their raw ids and their enums."""

import copy
import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from azure.communication import common
from azure.communication.common import (
    CommunicationCloudEnvironment,
    CommunicationIdentifier,
    CommunicationIdentifierKind,
    CommunicationUserIdentifier,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    TeamsExtensionUserIdentifier,
    UnknownIdentifier,
    identifier_from_raw_id,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

CASES = json.loads((Path(__file__).parent / "conformance" / "raw_ids.json").read_text("utf-8"))

CLASSES = {
    "communication_user": CommunicationUserIdentifier,
    "phone_number": PhoneNumberIdentifier,
    "microsoft_teams_user": MicrosoftTeamsUserIdentifier,
    "microsoft_teams_app": MicrosoftTeamsAppIdentifier,
    "teams_extension_user": TeamsExtensionUserIdentifier,
    "unknown": UnknownIdentifier,
}

DOD = CommunicationCloudEnvironment.DOD

# An identifier of each kind, and those whose properties do not follow from their raw id.
EXAMPLES = [
    CommunicationUserIdentifier("8:acs:r_u"),
    CommunicationUserIdentifier("u", raw_id="8:acs:r_t_u"),
    PhoneNumberIdentifier("+14255550123"),
    PhoneNumberIdentifier("+14255550123", raw_id="4:+14255550123"),
    PhoneNumberIdentifier("+14255550123", raw_id="4:+14255550123_abc"),
    PhoneNumberIdentifier("+1", raw_id="weird_x"),
    MicrosoftTeamsUserIdentifier("u"),
    MicrosoftTeamsUserIdentifier("u", is_anonymous=True),
    MicrosoftTeamsUserIdentifier("u", is_anonymous=True, cloud="DOD"),
    MicrosoftTeamsUserIdentifier("u", cloud=DOD),
    MicrosoftTeamsUserIdentifier("u", cloud="Mars"),
    MicrosoftTeamsUserIdentifier("u", raw_id="weird"),
    MicrosoftTeamsAppIdentifier("a"),
    MicrosoftTeamsAppIdentifier("a", cloud="GCCH", raw_id="28:dod:b"),
    TeamsExtensionUserIdentifier(user_id="u", tenant_id="t", resource_id="r"),
    TeamsExtensionUserIdentifier(user_id="u_v", tenant_id="t", resource_id="r", cloud="DOD"),
    TeamsExtensionUserIdentifier(user_id="u", tenant_id="t_", resource_id="r"),
    UnknownIdentifier("8:future:x"),
    UnknownIdentifier("8:acs:r_u"),
    UnknownIdentifier("'\"\\\n\ud800"),
    identifier_from_raw_id("4:+14255550123_abc"),
    identifier_from_raw_id("8:teamsvisitor:v"),
    identifier_from_raw_id("8:gcch-acs:r_t_u"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["raw_id"] or "empty")
def test_raw_id_gives_kind_and_properties(case):
    """A raw id is parsed into the class of its kind, with its properties."""
    identifier = identifier_from_raw_id(case["raw_id"])
    assert type(identifier) is CLASSES[case["kind"]]
    assert identifier.raw_id == case["raw_id"]
    assert identifier.kind == case["kind"]
    assert identifier.properties == case["properties"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["raw_id"] or "empty")
def test_properties_give_raw_id(case):
    """A constructor formats, from the properties, the raw id that they were parsed from."""
    cls = CLASSES[case["kind"]]
    arguments = {k: v for k, v in case["properties"].items() if k in cls.__match_args__}
    identifier = cls(**arguments) if arguments else cls(case["raw_id"])
    assert identifier.raw_id == case["raw_id"]
    assert identifier == identifier_from_raw_id(case["raw_id"])


ANY_TEXT = st.text(st.characters())  # lone surrogates too
PREFIXED = st.tuples(st.sampled_from(["4:", "8:acs:", "8:orgid:", "28:dod:", "8:x:"]), ANY_TEXT)


@settings(deadline=None)
@given(ANY_TEXT | PREFIXED.map("".join))
@example("\udcff")
@example("8:acs:\ud800_\ud801_\ud802")
def test_every_text_is_a_raw_id(raw_id):
    """Parsing keeps any text as the raw id, and the identifier survives repr and pickle."""
    identifier = identifier_from_raw_id(raw_id)
    assert identifier.raw_id == raw_id
    for again in (eval(repr(identifier)), pickle.loads(pickle.dumps(identifier))):
        assert type(again) is type(identifier)
        assert again.raw_id == raw_id
        assert again.properties == identifier.properties


@pytest.mark.parametrize(
    ("identifier", "raw_id", "properties"),
    [
        (CommunicationUserIdentifier("u"), "u", {"id": "u"}),
        (CommunicationUserIdentifier("u", raw_id="8:acs:u"), "8:acs:u", {"id": "u"}),
        # As in the SDKs, a number alone says nothing of anonymity.
        (PhoneNumberIdentifier("+1"), "4:+1", {"value": "+1"}),
        (
            PhoneNumberIdentifier("+1", raw_id="4:+1"),
            "4:+1",
            {"value": "+1", "is_anonymous": False},
        ),
        (
            PhoneNumberIdentifier("+1", raw_id="4:+1_x"),
            "4:+1_x",
            {"value": "+1", "is_anonymous": False, "asserted_id": "x"},
        ),
        (
            PhoneNumberIdentifier("?", raw_id="4:anonymous"),
            "4:anonymous",
            {"value": "?", "is_anonymous": True},
        ),
        (
            MicrosoftTeamsUserIdentifier("u"),
            "8:orgid:u",
            {"user_id": "u", "is_anonymous": False, "cloud": "PUBLIC"},
        ),
        (
            MicrosoftTeamsUserIdentifier("u", cloud="dod"),
            "8:dod:u",
            {"user_id": "u", "is_anonymous": False, "cloud": "DOD"},
        ),
        (
            MicrosoftTeamsUserIdentifier("u", is_anonymous=True, cloud="GCCH"),
            "8:teamsvisitor:u",
            {"user_id": "u", "is_anonymous": True, "cloud": "GCCH"},
        ),
        (
            MicrosoftTeamsUserIdentifier("u", cloud="Mars"),
            "8:orgid:u",
            {"user_id": "u", "is_anonymous": False, "cloud": "Mars"},
        ),
        (
            MicrosoftTeamsUserIdentifier("u", raw_id="weird"),
            "weird",
            {"user_id": "u", "is_anonymous": False, "cloud": "PUBLIC"},
        ),
        (MicrosoftTeamsAppIdentifier("a"), "28:orgid:a", {"app_id": "a", "cloud": "PUBLIC"}),
        (
            MicrosoftTeamsAppIdentifier("a", cloud="GCCH"),
            "28:gcch:a",
            {"app_id": "a", "cloud": "GCCH"},
        ),
        (
            TeamsExtensionUserIdentifier(user_id="u", tenant_id="t", resource_id="r", cloud="DOD"),
            "8:dod-acs:r_t_u",
            {"user_id": "u", "tenant_id": "t", "resource_id": "r", "cloud": "DOD"},
        ),
        (
            TeamsExtensionUserIdentifier(user_id="u", tenant_id="t_", resource_id="r"),
            "8:acs:r_t__u",
            {"user_id": "u", "tenant_id": "t_", "resource_id": "r", "cloud": "PUBLIC"},
        ),
        (UnknownIdentifier("8:acs:r_u"), "8:acs:r_u", {}),
    ],
    ids=repr,
)
def test_constructors(identifier, raw_id, properties):
    """A constructor keeps what it is given, and makes the raw id if none is given."""
    assert identifier.raw_id == raw_id
    assert identifier.properties == properties


@pytest.mark.parametrize("cloud", ["dod", "DOD", "Dod", DOD], ids=repr)
def test_cloud_is_found_in_any_case(cloud):
    """A known cloud becomes the enum's member, however it is written."""
    assert MicrosoftTeamsAppIdentifier("a", cloud=cloud).cloud is DOD


TEAMS_EXTENSION = {"user_id": "u", "tenant_id": "t", "resource_id": "r"}


@pytest.mark.parametrize(
    ("make", "arguments", "wrong"),
    [
        (CommunicationUserIdentifier, {}, {"id": 5}),
        (CommunicationUserIdentifier, {}, {"id": None}),
        (CommunicationUserIdentifier, {"id": "u"}, {"raw_id": b"u"}),
        (PhoneNumberIdentifier, {}, {"value": 14255550123}),
        (PhoneNumberIdentifier, {"value": "+1"}, {"raw_id": 1}),
        (MicrosoftTeamsUserIdentifier, {}, {"user_id": None}),
        (MicrosoftTeamsUserIdentifier, {"user_id": "u"}, {"is_anonymous": "no"}),
        (MicrosoftTeamsUserIdentifier, {"user_id": "u"}, {"cloud": 1}),
        (MicrosoftTeamsUserIdentifier, {"user_id": "u"}, {"raw_id": 1}),
        (MicrosoftTeamsAppIdentifier, {}, {"app_id": b"a"}),
        (MicrosoftTeamsAppIdentifier, {"app_id": "a"}, {"cloud": 5}),
        (MicrosoftTeamsAppIdentifier, {"app_id": "a"}, {"raw_id": 1}),
        (TeamsExtensionUserIdentifier, TEAMS_EXTENSION, {"user_id": 1}),
        (TeamsExtensionUserIdentifier, TEAMS_EXTENSION, {"tenant_id": 1}),
        (TeamsExtensionUserIdentifier, TEAMS_EXTENSION, {"resource_id": 1}),
        (TeamsExtensionUserIdentifier, TEAMS_EXTENSION, {"cloud": 1}),
        (TeamsExtensionUserIdentifier, TEAMS_EXTENSION, {"raw_id": 1}),
        (UnknownIdentifier, {}, {"identifier": None}),
        (identifier_from_raw_id, {}, {"raw_id": b"8:acs:x"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
)
def test_wrong_type_is_named(make, arguments, wrong):
    """An argument of the wrong type is a TypeError that names it."""
    name = next(iter(wrong))
    with pytest.raises(TypeError, match=rf"^{name} must be a (str|bool), not \w+(: [ \w?]+)?$"):
        make(**(arguments | wrong))


@pytest.mark.parametrize("cls", [c for c in CLASSES.values() if c is not UnknownIdentifier])
def test_mistyped_keyword_is_refused(cls):
    """A keyword that no constructor has is a TypeError that names it."""
    with pytest.raises(TypeError, match="rawid"):
        cls(rawid="x")


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_identifiers_are_immutable(identifier):
    """Nothing can be set or deleted, and the error says what to do."""
    before = (identifier.raw_id, identifier.properties)
    for name in ("raw_id", "kind", "properties", "new", "_raw_id", *identifier.__match_args__):
        with pytest.raises(AttributeError, match=f"cannot change '{name}'.*make a new one"):
            setattr(identifier, name, "x")
        with pytest.raises(AttributeError, match=f"cannot change '{name}'.*make a new one"):
            delattr(identifier, name)
    assert not hasattr(identifier, "__dict__")
    assert (identifier.raw_id, identifier.properties) == before


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_properties_are_a_new_dict_each_time(identifier):
    """Changing the dict that ``properties`` returned changes no identifier."""
    before = dict(identifier.properties)
    assert type(identifier.properties) is dict
    identifier.properties["added"] = 1
    assert identifier.properties == before


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_constructor_arguments_are_attributes(identifier):
    """Each constructor argument can be read back as an attribute, equal to the property."""
    expected = identifier.properties or {"identifier": identifier.raw_id}
    for name in identifier.__match_args__:
        assert getattr(identifier, name) == expected[name]


def same(one, other):
    return (type(one), one.raw_id, one.properties) == (type(other), other.raw_id, other.properties)


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_repr_evaluates_back(identifier):
    """The repr, evaluated with nothing but the class in scope, gives an equal identifier."""
    cls = type(identifier)
    assert same(eval(repr(identifier), {cls.__name__: cls}), identifier)


def test_repr_says_no_more_than_it_must():
    """The repr has the raw id only where the other arguments do not give it."""
    assert repr(PhoneNumberIdentifier("+1")) == "PhoneNumberIdentifier(value='+1')"
    assert repr(identifier_from_raw_id("8:dod:u")) == (
        "MicrosoftTeamsUserIdentifier(user_id='u', is_anonymous=False, cloud='DOD')"
    )
    assert repr(identifier_from_raw_id("4:+1")) == (
        "PhoneNumberIdentifier(value='+1', raw_id='4:+1')"
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_pickle(identifier, protocol):
    """Every pickle protocol brings back the same kind, raw id and properties."""
    assert same(pickle.loads(pickle.dumps(identifier, protocol)), identifier)


# Each SDK's own classes, as `_shared` of its release has them.
SDKS = ["callautomation", "chat", "identity"]


def theirs(models):
    """Return identifiers of an SDK, made in each way that leaves them with other attributes."""
    yield models.CommunicationUserIdentifier("8:acs:r_u")
    yield models.CommunicationUserIdentifier("u", raw_id="8:acs:r_u")
    yield models.PhoneNumberIdentifier("+1")
    yield models.PhoneNumberIdentifier("+1", raw_id="4:+1_x")
    yield models.MicrosoftTeamsUserIdentifier("u")
    yield models.MicrosoftTeamsUserIdentifier("u", is_anonymous=True)
    yield models.MicrosoftTeamsUserIdentifier("u", is_anonymous=None)
    yield models.MicrosoftTeamsUserIdentifier("u", cloud=models.CommunicationCloudEnvironment.DOD)
    yield models.MicrosoftTeamsUserIdentifier("u", cloud="Mars")
    yield models.MicrosoftTeamsAppIdentifier("a", cloud="GCCH")
    yield models.UnknownIdentifier("8:future:x")
    if hasattr(models, "TeamsExtensionUserIdentifier"):
        yield models.TeamsExtensionUserIdentifier(user_id="u", tenant_id="t", resource_id="r")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("sdk", SDKS)
def test_pickles_of_the_sdks_are_read_once_their_module_has_our_classes(sdk, protocol, monkeypatch):
    """Kind, raw id and properties are those that were pickled.

    Some SDKs' phone numbers leave out what only the raw id says.
    """
    models = importlib.import_module(f"azure.communication.{sdk}._shared.models")
    before = [
        (pickle.dumps(each, protocol), each.kind.value, each.raw_id, dict(each.properties))
        for each in theirs(models)
    ]
    for name in ("CommunicationCloudEnvironment", *(cls.__name__ for cls in CLASSES.values())):
        monkeypatch.setattr(models, name, getattr(common, name), raising=False)
    for pickled, kind, raw_id, properties in before:
        identifier = pickle.loads(pickled)
        assert type(identifier) is CLASSES[kind]
        assert identifier.raw_id == raw_id
        if properties.get("is_anonymous", False) is None:
            properties["is_anonymous"] = False
        if raw_id == "4:+1_x":
            properties |= {"is_anonymous": False, "asserted_id": "x"}
        assert identifier.properties == properties
        assert same(pickle.loads(pickle.dumps(identifier)), identifier)


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_an_identifier_takes_no_state(identifier):
    """What reads old pickles does not change an identifier that there is."""
    before = (identifier.raw_id, identifier.properties)
    with pytest.raises(TypeError, match=f"a {type(identifier).__name__} is immutable"):
        identifier.__setstate__({"raw_id": "x", "properties": {}})
    assert (identifier.raw_id, identifier.properties) == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"raw_id": 5}, "raw_id must be a str, not int"),
        ({"user_id": 5}, "user_id must be a str, not int"),
        ({"user_id": ["8:acs:a"]}, "user_id must be a str, not list$"),
        ({"is_anonymous": 5}, "is_anonymous must be a bool, not int"),
        ({"cloud": 5}, "cloud must be a str, not int"),
    ],
)
def test_state_of_a_wrong_type_is_named(wrong, message):
    """As it would be by the constructor."""
    values = {"raw_id": "x", "user_id": "u", "is_anonymous": False, "cloud": "DOD", **wrong}
    identifier = object.__new__(MicrosoftTeamsUserIdentifier)
    with pytest.raises(TypeError, match=message):
        identifier.__setstate__({"raw_id": values.pop("raw_id"), "properties": values})


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_copies_are_the_identifier_itself(identifier):
    """As with any immutable value, a copy is the value itself, alone or in a container."""
    assert copy.copy(identifier) is identifier
    assert copy.deepcopy([identifier])[0] is identifier


def test_str_subclass_is_kept_as_plain_text():
    """An enum member given as an id or as a raw id is held as its plain text."""
    kind = CommunicationIdentifierKind.PHONE_NUMBER
    assert type(identifier_from_raw_id(kind).raw_id) is str
    assert repr(CommunicationUserIdentifier(kind)) == (
        "CommunicationUserIdentifier(id='phone_number')"
    )


class OtherIdentifier:
    """What a sibling package may have: its own identifier class."""

    kind = "phone_number"

    def __init__(self, raw_id):
        self.raw_id = raw_id
        self.properties = {}


def test_equality_is_by_raw_id():
    """Identifiers are equal to whatever has the same raw id, and to nothing else."""
    identifier = identifier_from_raw_id("4:+1")
    assert identifier == PhoneNumberIdentifier("+1")
    assert identifier == UnknownIdentifier("4:+1")
    assert identifier == OtherIdentifier("4:+1")
    assert OtherIdentifier("4:+1") == identifier
    assert identifier != PhoneNumberIdentifier("+2")
    assert identifier != OtherIdentifier("4:+2")
    for other in ("4:+1", None, object(), OtherIdentifier(None), PhoneNumberIdentifier):
        assert identifier != other
        assert identifier.__eq__(other) is NotImplemented


def test_equal_identifiers_are_one_in_a_set():
    """Equal identifiers have equal hashes, so that sets and dict keys work."""
    assert len({identifier_from_raw_id("4:+1"), PhoneNumberIdentifier("+1")}) == 1
    assert {PhoneNumberIdentifier("+1"): 1}[identifier_from_raw_id("4:+1")] == 1


def describe(identifier):
    match identifier:
        case CommunicationUserIdentifier(id):
            return id
        case PhoneNumberIdentifier(value):
            return value
        case MicrosoftTeamsUserIdentifier(user_id, cloud=CommunicationCloudEnvironment.DOD):
            return user_id + " in DOD"
        case MicrosoftTeamsUserIdentifier(user_id, is_anonymous):
            return (user_id, is_anonymous)
        case MicrosoftTeamsAppIdentifier(app_id):
            return app_id
        case TeamsExtensionUserIdentifier(user_id, tenant_id, resource_id, cloud):
            return (user_id, tenant_id, resource_id, cloud)
        case UnknownIdentifier(raw_id):
            return raw_id


@pytest.mark.parametrize(
    ("raw_id", "expected"),
    [
        ("8:acs:r_u", "8:acs:r_u"),
        ("4:+1", "+1"),
        ("8:dod:u", "u in DOD"),
        ("8:teamsvisitor:u", ("u", True)),
        ("28:orgid:a", "a"),
        ("8:gcch-acs:r_t_u", ("u", "t", "r", "GCCH")),
        ("8:future:x", "8:future:x"),
    ],
)
def test_matching_by_position(raw_id, expected):
    """A match statement takes identifiers apart by position and by attribute."""
    assert describe(identifier_from_raw_id(raw_id)) == expected


@pytest.mark.parametrize(("kind", "cls"), CLASSES.items())
def test_kind_is_a_class_constant(kind, cls):
    """The kind can be read from the class, as a member of the enum."""
    assert cls.kind is CommunicationIdentifierKind(kind)


@pytest.mark.parametrize("identifier", EXAMPLES, ids=repr)
def test_protocol(identifier):
    """Every model is a CommunicationIdentifier at run time."""
    assert isinstance(identifier, CommunicationIdentifier)


def test_protocol_asks_for_its_three_members_only():
    """An object with raw id, kind and properties is an identifier; one without is not."""
    assert isinstance(OtherIdentifier("x"), CommunicationIdentifier)
    assert not isinstance("4:+1", CommunicationIdentifier)
    assert not isinstance(CommunicationIdentifierKind.UNKNOWN, CommunicationIdentifier)


@pytest.mark.parametrize("enum", [CommunicationIdentifierKind, CommunicationCloudEnvironment])
def test_enums_are_found_in_any_case(enum):
    """A member is found by name, by value and as an attribute, in any case."""
    for member in enum:
        for change in (str.upper, str.lower, str.capitalize):
            assert enum[change(member.name)] is member
            assert enum(change(member.value)) is member
            assert getattr(enum, change(member.name)) is member
        assert member == member.value
        assert pickle.loads(pickle.dumps(member)) is member


def test_enums_have_the_values_of_the_service():
    """Values are the SDKs': clouds in upper case, kinds in snake case."""
    assert [c.value for c in CommunicationCloudEnvironment] == ["PUBLIC", "DOD", "GCCH"]
    assert {k.value for k in CommunicationIdentifierKind} == set(CLASSES)


@pytest.mark.parametrize("enum", [CommunicationIdentifierKind, CommunicationCloudEnvironment])
def test_enums_refuse_what_they_do_not_have(enum):
    """An unknown name or value is the error that any enum raises."""
    with pytest.raises(KeyError):
        enum["mars"]
    with pytest.raises(ValueError, match="mars"):
        enum("mars")
    with pytest.raises(ValueError, match="5"):
        enum(5)
    with pytest.raises(AttributeError, match="mars"):
        enum.mars  # noqa: B018


ALIKE = {"I": "\N{LATIN SMALL LETTER DOTLESS I}", "S": "\N{LATIN SMALL LETTER LONG S}"}


@pytest.mark.parametrize("enum", [CommunicationIdentifierKind, CommunicationCloudEnvironment])
@pytest.mark.parametrize(("letter", "other"), ALIKE.items())
def test_letters_that_only_look_alike_are_not_taken(enum, letter, other):
    """Some letters outside ASCII have an ASCII capital; they are not part of a member's name."""
    assert other.upper() == letter
    for member in enum:
        name = member.name.replace(letter, other)
        if name != member.name:
            with pytest.raises(KeyError):
                enum[name]
            with pytest.raises(ValueError, match="is not a valid"):
                enum(name)
            assert not hasattr(enum, name)


def test_a_cloud_that_only_looks_public_is_another_cloud():
    """It is kept as the text that it is."""
    identifier = MicrosoftTeamsAppIdentifier("a", cloud="publ\N{LATIN SMALL LETTER DOTLESS I}c")
    assert identifier.cloud == "publ\N{LATIN SMALL LETTER DOTLESS I}c"


HEAVY = {"azure.core", "jwt", "cryptography", "pydantic", "asyncio", "json", "logging"}
if sys.version_info >= (3, 11):
    HEAVY |= {"typing_extensions", "dataclasses", "inspect"}


@pytest.mark.parametrize("module", ["_identifiers", "_serialization"])
def test_import_is_light(module):
    """In a fresh interpreter, identifiers load neither azure-core nor anything else heavy."""
    code = (
        "import sys; before = set(sys.modules); "
        f"import azure.communication.common.{module}; "
        "print(*sorted(set(sys.modules) - before))"
    )
    path = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert f"azure.communication.common.{module}" in loaded
    assert not loaded & HEAVY


def test_no_word_on_anonymity_is_not_anonymous():
    """As in the SDKs, for JSON that leaves it out: None counts as False."""
    identifier = MicrosoftTeamsUserIdentifier("u", is_anonymous=None)
    assert same(identifier, MicrosoftTeamsUserIdentifier("u"))
    assert identifier.is_anonymous is False


@pytest.mark.parametrize("cloud", [None, "public", CommunicationCloudEnvironment.PUBLIC])
def test_no_cloud_is_the_public_one(cloud):
    """As in the SDKs, for JSON that leaves the cloud out."""
    for identifier in (
        MicrosoftTeamsAppIdentifier("a", cloud=cloud),
        MicrosoftTeamsUserIdentifier("u", cloud=cloud),
        TeamsExtensionUserIdentifier(user_id="u", tenant_id="t", resource_id="r", cloud=cloud),
    ):
        assert identifier.cloud is CommunicationCloudEnvironment.PUBLIC
