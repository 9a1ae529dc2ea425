"""Identifiers as the REST API's JSON, in both directions."""

import json
import types
from pathlib import Path

import pytest
from azure.communication.common import (
    CommunicationUserIdentifier,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    TeamsExtensionUserIdentifier,
    UnknownIdentifier,
    deserialize_identifier,
    identifier_from_raw_id,
    serialize_identifier,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

CONFORMANCE = Path(__file__).parent / "conformance"
RAW_IDS = json.loads((CONFORMANCE / "raw_ids.json").read_text("utf-8"))
WIRE = json.loads((CONFORMANCE / "wire.json").read_text("utf-8"))


@pytest.mark.parametrize("case", RAW_IDS, ids=lambda case: case["raw_id"] or "empty")
def test_raw_id_to_wire(case):
    """What a raw id stands for is written as the service writes it, in plain JSON values."""
    wire = serialize_identifier(identifier_from_raw_id(case["raw_id"]))
    assert wire == case["wire"]
    assert json.loads(json.dumps(wire)) == wire


@pytest.mark.parametrize("case", RAW_IDS, ids=lambda case: case["raw_id"] or "empty")
def test_wire_to_raw_id(case):
    """The same JSON is read back as the same kind, raw id and properties."""
    identifier = deserialize_identifier(case["wire"])
    assert identifier.raw_id == case["raw_id"]
    assert identifier.kind == case["kind"]
    assert identifier.properties == case["properties"]


@pytest.mark.parametrize("case", WIRE["valid"], ids=lambda case: json.dumps(case["wire"]))
def test_valid_wire(case):
    """JSON as services send it is read, whatever else it contains."""
    identifier = deserialize_identifier(case["wire"])
    assert identifier.raw_id == case["raw_id"]
    assert identifier.kind == case["kind"]
    assert identifier.properties == case["properties"]


INVALID = {
    "two models": "not several: communicationUser, phoneNumber",
    "no id": "the member communicationUser.id is missing",
    "no phone value": "the member phoneNumber.value is missing",
    "no Teams user id": "the member microsoftTeamsUser.userId is missing",
    "no app id": "the member microsoftTeamsApp.appId is missing",
    "no tenant id": "the member teamsExtensionUser.tenantId is missing",
    "empty object": "must have the member rawId or one of communicationUser, ",
    "raw id is a number": "the member rawId must be a JSON string, not int",
    "model is a string": "the member communicationUser must be a JSON object, not str",
    "a kind that is not known, and no raw id": "the member rawId is missing, and there is no model",
}


@pytest.mark.parametrize("case", WIRE["invalid"], ids=lambda case: case["name"])
def test_invalid_wire(case):
    """Malformed JSON is a ValueError that names the member and what is wrong with it."""
    with pytest.raises(ValueError, match=INVALID[case["name"]]):
        deserialize_identifier(case["wire"])


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ({"phoneNumber": {"value": 5}}, r"phoneNumber\.value must be a JSON string, not int"),
        (
            {"microsoftTeamsUser": {"userId": "secret", "isAnonymous": "no"}},
            r"microsoftTeamsUser\.isAnonymous must be a JSON boolean, not str",
        ),
        (
            {"microsoftTeamsApp": {"appId": "secret", "cloud": ["public"]}},
            r"microsoftTeamsApp\.cloud must be a JSON string, not list",
        ),
        ({"phoneNumber": ["secret"]}, "phoneNumber must be a JSON object, not list"),
        ({"phoneNumber": {"value": None}}, r"phoneNumber\.value is missing"),
        ({"kind": 5, "rawId": "secret"}, "the member kind must be a JSON string, not int"),
        ({"kind": "phoneNumber"}, "rawId is missing, and there is no model of the kind"),
    ],
)
def test_member_of_wrong_type(wire, message):
    """A member of the wrong type is named with its path; its value is not shown."""
    with pytest.raises(ValueError, match=message) as caught:
        deserialize_identifier(wire)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wire", [None, [("rawId", "x")], b"{}"])
def test_wire_must_be_a_mapping(wire):
    """What is not a JSON object at all is a TypeError that names the argument."""
    with pytest.raises(TypeError, match=r"^wire must be a mapping"):
        deserialize_identifier(wire)


def test_any_mapping_is_read():
    """The JSON object may be any mapping, and is left as it was."""
    wire = types.MappingProxyType({"phoneNumber": types.MappingProxyType({"value": "+1"})})
    assert deserialize_identifier(wire).raw_id == "4:+1"


@pytest.mark.parametrize(
    ("wire", "raw_id"),
    [
        ({"communicationUser": {"id": "8:acs:r_u"}}, "8:acs:r_u"),
        ({"phoneNumber": {"value": "+1"}}, "4:+1"),
        ({"microsoftTeamsUser": {"userId": "u"}}, "8:orgid:u"),
        ({"microsoftTeamsUser": {"userId": "u", "cloud": "gcch"}}, "8:gcch:u"),
        ({"microsoftTeamsUser": {"userId": "u", "isAnonymous": True}}, "8:teamsvisitor:u"),
        ({"microsoftTeamsApp": {"appId": "a", "cloud": "dod"}, "rawId": None}, "28:dod:a"),
        (
            {"teamsExtensionUser": {"userId": "u", "tenantId": "t", "resourceId": "r"}},
            "8:acs:r_t_u",
        ),
    ],
)
def test_raw_id_is_made_if_the_wire_has_none(wire, raw_id):
    """Without rawId, which requests may leave out, the raw id comes from the model."""
    assert deserialize_identifier(wire).raw_id == raw_id


def test_model_wins_over_raw_id():
    """Where model and raw id disagree, the properties are the model's."""
    identifier = deserialize_identifier(
        {"rawId": "8:dod:x", "microsoftTeamsUser": {"userId": "u", "cloud": "gcch"}}
    )
    assert identifier.raw_id == "8:dod:x"
    assert identifier.properties == {"user_id": "u", "is_anonymous": False, "cloud": "GCCH"}
    number = {"rawId": "4:+14255550123_abc", "phoneNumber": {"value": "+14255550123"}}
    assert deserialize_identifier(number).properties == {
        "value": "+14255550123",
        "is_anonymous": False,
        "asserted_id": "abc",
    }


def test_raw_id_alone_is_not_parsed():
    """JSON with a raw id alone is an unknown identifier, as in the SDKs of all languages."""
    identifier = deserialize_identifier({"rawId": "8:acs:r_u", "kind": "communicationUser"})
    assert type(identifier) is UnknownIdentifier


def test_cloud_of_the_future():
    """A cloud that this version does not know is kept as it is written, both ways."""
    wire = {
        "rawId": "8:mars:u",
        "microsoftTeamsUser": {"userId": "u", "isAnonymous": False, "cloud": "Mars"},
    }
    identifier = deserialize_identifier(wire)
    assert identifier.properties["cloud"] == "Mars"
    assert serialize_identifier(identifier) == wire


def test_kind_decides_between_two_models():
    """Where JSON names its kind, what belongs to another kind is ignored like any other member."""
    wire = {
        "kind": "phoneNumber",
        "rawId": "4:+1",
        "phoneNumber": {"value": "+1"},
        "communicationUser": "no object",
    }
    assert type(deserialize_identifier(wire)) is PhoneNumberIdentifier
    wire["kind"] = "unknown"
    assert type(deserialize_identifier(wire)) is UnknownIdentifier


def test_a_kind_of_null_is_absent():
    """As with any other member; the model says what it is."""
    wire = {"kind": None, "phoneNumber": {"value": "+1"}}
    assert type(deserialize_identifier(wire)) is PhoneNumberIdentifier


@pytest.mark.parametrize("cls", [CommunicationUserIdentifier, PhoneNumberIdentifier])
@pytest.mark.parametrize("kind", ["communicationUser", "phoneNumber", "futureKind", "unknown"])
def test_pydantic_goes_by_the_kind_too(cls, kind):
    """A field of one class takes JSON that names that kind, and no other."""
    wire = {
        "kind": kind,
        "rawId": "x",
        "communicationUser": {"id": "x"},
        "phoneNumber": {"value": "x"},
    }
    adapter = TypeAdapter(cls)
    if type(deserialize_identifier(wire)) is cls:
        assert adapter.validate_python(wire).raw_id == "x"
    else:
        with pytest.raises(ValidationError, match=f"expected a raw id or JSON of {cls.__name__}"):
            adapter.validate_python(wire)


TEXT = st.text(max_size=5)
RAW_ID = st.none() | TEXT | st.sampled_from(["4:a_b", "8:dod:x", "8:acs:r_t_u", "28:gcch:a"])
CLOUD = st.sampled_from(["PUBLIC", "DOD", "GCCH", "dod", "Mars", ""])
IDENTIFIERS = st.one_of(
    st.builds(CommunicationUserIdentifier, TEXT, raw_id=RAW_ID),
    st.builds(PhoneNumberIdentifier, TEXT, raw_id=RAW_ID.filter(lambda raw_id: raw_id is not None)),
    st.builds(
        MicrosoftTeamsUserIdentifier, TEXT, is_anonymous=st.booleans(), cloud=CLOUD, raw_id=RAW_ID
    ),
    st.builds(MicrosoftTeamsAppIdentifier, TEXT, cloud=CLOUD, raw_id=RAW_ID),
    st.builds(
        TeamsExtensionUserIdentifier,
        user_id=TEXT,
        tenant_id=TEXT,
        resource_id=TEXT,
        cloud=CLOUD,
        raw_id=RAW_ID,
    ),
    st.builds(UnknownIdentifier, TEXT | RAW_ID.filter(bool)),
)


@settings(deadline=None)
@given(IDENTIFIERS)
def test_round_trip(identifier):
    """Writing and reading back gives the same kind, raw id and properties."""
    again = deserialize_identifier(serialize_identifier(identifier))
    assert type(again) is type(identifier)
    assert again == identifier
    assert again.properties == identifier.properties


def test_round_trip_of_a_number_alone():
    """A number made without a raw id goes out as it is; what comes back says "not anonymous"."""
    identifier = PhoneNumberIdentifier("+1")
    wire = serialize_identifier(identifier)
    assert wire == {"rawId": "4:+1", "phoneNumber": {"value": "+1"}}
    assert deserialize_identifier(wire) == identifier
    assert deserialize_identifier(wire).properties == {"value": "+1", "is_anonymous": False}


class LaterIdentifier:
    """An identifier of a kind that only a later SDK may have."""

    raw_id = "8:later:x"

    def __init__(self, kind):
        self.kind = kind
        self.properties = {"some_id": "x", "is_new": True, "not_set": None}


@pytest.mark.parametrize("kind", ["later_kind", "laterKind", "unknown", "", None, 5, ["x"]])
def test_an_identifier_of_an_unknown_kind_is_written_by_its_raw_id(kind):
    """The service knows what a raw id means; the name of a model would be a guess."""
    assert serialize_identifier(LaterIdentifier(kind)) == {"rawId": "8:later:x"}


def test_an_identifier_of_another_package_is_written():
    """By its kind and properties, also those that are new, without nulls."""
    assert serialize_identifier(LaterIdentifier("phone_number")) == {
        "rawId": "8:later:x",
        "phoneNumber": {"someId": "x", "isNew": True},
    }


@pytest.mark.parametrize("value", ["8:acs:x", None, {}, PhoneNumberIdentifier, object()])
def test_only_identifiers_are_written(value):
    """What is not an identifier is a TypeError that names the argument and the way out."""
    with pytest.raises(TypeError, match=r"^identifier must have .*identifier_from_raw_id\(\)"):
        serialize_identifier(value)
