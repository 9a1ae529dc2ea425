"""Identifiers as the types of pydantic fields."""

import pytest
from azure.communication import callautomation, chat
from azure.communication.common import (
    CommunicationIdentifier,
    CommunicationUserIdentifier,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    TeamsExtensionUserIdentifier,
    UnknownIdentifier,
)
from pydantic import BaseModel, TypeAdapter, ValidationError

PHONE = {"rawId": "4:+1", "phoneNumber": {"value": "+1", "isAnonymous": False}}

CASES = [
    (
        CommunicationUserIdentifier,
        "8:acs:r_u",
        {"rawId": "8:acs:r_u", "communicationUser": {"id": "8:acs:r_u"}},
    ),
    (PhoneNumberIdentifier, "4:+1", PHONE),
    (
        MicrosoftTeamsUserIdentifier,
        "8:dod:u",
        {
            "rawId": "8:dod:u",
            "microsoftTeamsUser": {"userId": "u", "isAnonymous": False, "cloud": "dod"},
        },
    ),
    (
        MicrosoftTeamsAppIdentifier,
        "28:orgid:a",
        {"rawId": "28:orgid:a", "microsoftTeamsApp": {"appId": "a", "cloud": "public"}},
    ),
    (
        TeamsExtensionUserIdentifier,
        "8:acs:r_t_u",
        {
            "rawId": "8:acs:r_t_u",
            "teamsExtensionUser": {
                "userId": "u",
                "tenantId": "t",
                "resourceId": "r",
                "cloud": "public",
            },
        },
    ),
    (UnknownIdentifier, "8:future:x", {"rawId": "8:future:x"}),
]
by_class = pytest.mark.parametrize(("cls", "raw_id", "wire"), CASES, ids=[c[1] for c in CASES])


class Call(BaseModel):
    """A model with an identifier of one kind, of two kinds, and of any kind."""

    caller: PhoneNumberIdentifier
    agent: CommunicationUserIdentifier | MicrosoftTeamsUserIdentifier | None = None
    others: list[CommunicationIdentifier] = []


@by_class
def test_raw_id_or_wire_in_and_wire_out(cls, raw_id, wire):
    """A field of a model class takes a raw id, wire JSON or an instance, and gives wire JSON."""
    adapter = TypeAdapter(cls)
    instance = adapter.validate_python(raw_id)
    assert type(instance) is cls
    assert instance.raw_id == raw_id
    assert adapter.validate_python(instance) is instance
    for again in (
        adapter.validate_python(wire),
        adapter.validate_json(adapter.dump_json(instance)),
    ):
        assert type(again) is cls
        assert again.properties == instance.properties
    assert adapter.dump_python(instance) == wire
    assert adapter.dump_python(instance, mode="json") == wire


@by_class
def test_every_other_kind_is_refused(cls, raw_id, wire):
    """A raw id, wire JSON or instance of another kind is a validation error."""
    adapter = TypeAdapter(cls)
    for other, other_raw_id, other_wire in CASES:
        if other is not cls:
            for value in (
                other_raw_id,
                other_wire,
                TypeAdapter(other).validate_python(wire_of(other)),
            ):
                with pytest.raises(
                    ValidationError, match=rf"{cls.__name__}, not of {other.__name__}"
                ):
                    adapter.validate_python(value)


def wire_of(cls):
    return next(wire for model, _, wire in CASES if model is cls)


@by_class
def test_any_kind(cls, raw_id, wire):
    """A field of the protocol's type takes every kind, in every form."""
    adapter = TypeAdapter(CommunicationIdentifier)
    for value in (raw_id, wire, TypeAdapter(cls).validate_python(raw_id)):
        identifier = adapter.validate_python(value)
        assert type(identifier) is cls
        assert adapter.dump_python(identifier) == wire


def test_model():
    """Identifiers work within a model, in a union and in a list, and JSON round-trips."""
    call = Call.model_validate(
        {"caller": "4:+1", "agent": "8:orgid:u", "others": ["8:acs:r_u", "8:future:x", PHONE]}
    )
    assert type(call.agent) is MicrosoftTeamsUserIdentifier
    assert [type(other) for other in call.others] == [
        CommunicationUserIdentifier,
        UnknownIdentifier,
        PhoneNumberIdentifier,
    ]
    assert call.model_dump()["caller"] == PHONE
    assert Call.model_validate_json(call.model_dump_json()) == call


def test_identifiers_of_the_sdks():
    """An SDK's own identifier is taken and becomes ours; of another kind, it is refused."""
    theirs = callautomation.PhoneNumberIdentifier("+1", raw_id="4:+1")
    call = Call(caller=theirs, others=[chat.CommunicationUserIdentifier("8:acs:r_u")])
    assert type(call.caller) is PhoneNumberIdentifier
    assert call.caller.properties == theirs.properties
    assert call.model_dump()["others"] == [
        {"rawId": "8:acs:r_u", "communicationUser": {"id": "8:acs:r_u"}}
    ]
    with pytest.raises(ValidationError, match="CommunicationUserIdentifier"):
        Call(caller=chat.CommunicationUserIdentifier("8:acs:r_u"))


@pytest.mark.parametrize("annotation", [PhoneNumberIdentifier, CommunicationIdentifier])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "expected an identifier, a raw id or its JSON, not int"),
        (None, "expected an identifier, a raw id or its JSON, not NoneType"),
        (PhoneNumberIdentifier, "expected an identifier, a raw id or its JSON, not type"),
        ({}, "must have the member rawId"),
        ({"phoneNumber": {}}, "the member phoneNumber.value is missing"),
    ],
)
def test_invalid_input_is_a_validation_error(annotation, value, message):
    """What is not an identifier is a validation error with our own message, never another error."""
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(annotation).validate_python(value)


@by_class
def test_json_schema_of_input(cls, raw_id, wire):
    """The schema of what is read has the raw id and the wire JSON, whose raw id may be missing."""
    text, model = TypeAdapter(cls).json_schema()["anyOf"]
    assert text["type"] == "string"
    assert model["type"] == "object"
    assert set(model["properties"]) == set(wire)
    assert model["required"] == list(wire)[-1:]


@by_class
def test_json_schema_of_output(cls, raw_id, wire):
    """The schema of what is written is the wire JSON with all its members."""
    model = TypeAdapter(cls).json_schema(mode="serialization")
    assert model["title"] == cls.__name__
    assert model["required"] == list(wire)
    for name, member in wire.items():
        schema = model["properties"][name]
        if name == "rawId":
            assert schema == {"type": "string"}
        else:
            assert set(member) <= set(schema["properties"])
            assert set(schema["required"]) <= set(member)


def test_json_schema_of_a_phone_number():
    """The schema names every member that the service has, with its type."""
    assert TypeAdapter(PhoneNumberIdentifier).json_schema(mode="serialization") == {
        "title": "PhoneNumberIdentifier",
        "type": "object",
        "properties": {
            "rawId": {"type": "string"},
            "phoneNumber": {
                "type": "object",
                "properties": {
                    "value": {"type": "string"},
                    "isAnonymous": {"type": "boolean"},
                    "assertedId": {"type": "string"},
                },
                "required": ["value"],
            },
        },
        "required": ["rawId", "phoneNumber"],
    }


def test_json_schema_leaves_out_what_may_be_missing():
    """What a request may leave out is required only in the schema of what is written."""
    adapter = TypeAdapter(MicrosoftTeamsUserIdentifier)
    read = adapter.json_schema()["anyOf"][1]["properties"]["microsoftTeamsUser"]
    written = adapter.json_schema(mode="serialization")["properties"]["microsoftTeamsUser"]
    assert read["properties"] == written["properties"]
    assert read["required"] == ["userId"]
    assert written["required"] == ["cloud", "isAnonymous", "userId"]


def test_json_schema_of_any_kind():
    """A model with a field of any kind has a schema with one form for each kind."""
    assert len(Call.model_json_schema()["properties"]["others"]["items"]["anyOf"]) == 7
    written = Call.model_json_schema(mode="serialization")
    assert len(written["properties"]["others"]["items"]["anyOf"]) == 6
