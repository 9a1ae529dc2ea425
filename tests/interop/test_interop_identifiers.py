"""Our identifiers next to those of the published Communication SDKs."""

import importlib

import pytest
from azure.communication import common
from azure.communication.callautomation import _utils as callautomation_utils
from azure.communication.callautomation._shared import models as theirs
from azure.communication.chat import _communication_identifier_serializer as chat_serializer
from hypothesis import given, settings
from hypothesis import strategies as st

PACKAGES = ["callautomation", "chat", "identity", "rooms"]

PARTS = st.text(st.sampled_from("ab_+1:é"), max_size=6) | st.text(st.characters(), max_size=4)
PREFIXES = st.sampled_from(
    [
        "4:", "8:acs:", "8:dod-acs:", "8:gcch-acs:", "8:spool:", "8:orgid:", "8:dod:", "8:gcch:",
        "8:teamsvisitor:", "28:orgid:", "28:dod:", "28:gcch:",
        # and those that look like one
        "", "4", "8:", "8::", "28:", "28::", "48:", "4:4:", "08:acs:", "8:ACS:", ":8:acs:",
        "8:acs", "28:dod-global:", "28:gcch-global:", "8:future:", "28:acs:", "4:anonymous",
    ]
)  # fmt: skip
RAW_IDS = st.one_of(
    st.text(st.characters()),
    st.builds(lambda prefix, rest: prefix + rest, PREFIXES, PARTS),
    st.builds(
        lambda prefix, parts: prefix + "_".join(parts), PREFIXES, st.lists(PARTS, max_size=4)
    ),
)


def assert_same(ours, their):
    """Assert that the two are the same to a user, and to the SDKs' own serializers."""
    assert isinstance(ours, common.CommunicationIdentifier)
    assert isinstance(ours, theirs.CommunicationIdentifier)
    assert isinstance(their, common.CommunicationIdentifier)
    assert type(ours).__name__ == type(their).__name__
    assert ours.raw_id == their.raw_id
    assert ours.kind == their.kind
    assert hash(ours.kind) == hash(their.kind)
    assert ours.properties == dict(their.properties)
    assert ours == their
    assert their == ours
    models = [callautomation_utils.serialize_identifier(one) for one in (ours, their)]
    assert models[0].serialize() == models[1].serialize()
    assert models[0].as_dict() == models[1].as_dict()
    assert chat_serializer.serialize_identifier(ours) == chat_serializer.serialize_identifier(their)
    assert common.serialize_identifier(ours) == common.serialize_identifier(their)


@settings(max_examples=3000, deadline=None)
@given(RAW_IDS)
def test_any_raw_id(raw_id):
    """Any raw id means the same to us and to azure-communication-callautomation."""
    assert_same(common.identifier_from_raw_id(raw_id), theirs.identifier_from_raw_id(raw_id))


@settings(max_examples=300, deadline=None)
@given(RAW_IDS, RAW_IDS)
def test_different_raw_ids_differ(one, other):
    """Ours and theirs are equal exactly if the raw ids are, whichever is on the left."""
    ours, their = common.identifier_from_raw_id(one), theirs.identifier_from_raw_id(other)
    assert (ours == their) is (one == other)
    assert (their == ours) is (one == other)


CLOUDS = st.sampled_from(["PUBLIC", "DOD", "GCCH", "MARS"])
# Never an empty one: with it, theirs are not even equal to themselves.
RAW_ID = st.just({}) | st.fixed_dictionaries({"raw_id": RAW_IDS.filter(bool)})


@settings(max_examples=300, deadline=None)
@given(PARTS.filter(bool), RAW_ID)
def test_constructor_of_communication_user(id, raw_id):
    """The same arguments make the same Communication user."""
    assert_same(
        common.CommunicationUserIdentifier(id, **raw_id),
        theirs.CommunicationUserIdentifier(id, **raw_id),
    )


@settings(max_examples=300, deadline=None)
@given(PARTS, RAW_ID)
def test_constructor_of_phone_number(value, raw_id):
    """The same arguments make the same phone number, with or without a raw id."""
    assert_same(
        common.PhoneNumberIdentifier(value, **raw_id),
        theirs.PhoneNumberIdentifier(value, **raw_id),
    )


@settings(max_examples=300, deadline=None)
@given(PARTS, st.booleans(), CLOUDS, RAW_ID)
def test_constructor_of_teams_user(user_id, is_anonymous, cloud, raw_id):
    """The same arguments make the same Teams user, in every cloud."""
    arguments = {"is_anonymous": is_anonymous, "cloud": cloud, **raw_id}
    assert_same(
        common.MicrosoftTeamsUserIdentifier(user_id, **arguments),
        theirs.MicrosoftTeamsUserIdentifier(user_id, **arguments),
    )


@settings(max_examples=300, deadline=None)
@given(PARTS, CLOUDS, RAW_ID)
def test_constructor_of_teams_app(app_id, cloud, raw_id):
    """The same arguments make the same Teams application, in every cloud."""
    assert_same(
        common.MicrosoftTeamsAppIdentifier(app_id, cloud=cloud, **raw_id),
        theirs.MicrosoftTeamsAppIdentifier(app_id, cloud=cloud, **raw_id),
    )


@settings(max_examples=300, deadline=None)
@given(PARTS, PARTS, PARTS, CLOUDS, RAW_ID)
def test_constructor_of_teams_extension_user(user_id, tenant_id, resource_id, cloud, raw_id):
    """The same arguments make the same Teams extension user, in every cloud."""
    arguments = {
        "user_id": user_id,
        "tenant_id": tenant_id,
        "resource_id": resource_id,
        "cloud": cloud,
        **raw_id,
    }
    assert_same(
        common.TeamsExtensionUserIdentifier(**arguments),
        theirs.TeamsExtensionUserIdentifier(**arguments),
    )


@pytest.mark.parametrize("cloud", ["PUBLIC", "DOD", "GCCH"])
def test_enum_members_are_interchangeable(cloud):
    """Each side accepts the other's cloud, and ours is the same text to theirs."""
    ours, their = (
        common.CommunicationCloudEnvironment[cloud],
        theirs.CommunicationCloudEnvironment[cloud],
    )
    assert ours == their
    assert common.MicrosoftTeamsAppIdentifier("a", cloud=their).cloud is ours
    assert_same(
        common.MicrosoftTeamsAppIdentifier("a", cloud=their),
        theirs.MicrosoftTeamsAppIdentifier("a", cloud=ours),
    )


def test_defaults():
    """What is left out is the same on both sides."""
    assert_same(common.MicrosoftTeamsUserIdentifier("u"), theirs.MicrosoftTeamsUserIdentifier("u"))
    assert_same(common.MicrosoftTeamsAppIdentifier("a"), theirs.MicrosoftTeamsAppIdentifier("a"))
    assert_same(common.UnknownIdentifier("x"), theirs.UnknownIdentifier("x"))


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("raw_id", ["8:acs:r_u", "4:+1", "8:orgid:u", "28:dod:a", "8:future:x"])
def test_every_package_knows_our_identifiers(package, raw_id):
    """Each package's protocol and models accept ours, and ours accept theirs."""
    models = importlib.import_module(f"azure.communication.{package}._shared.models")
    ours, their = common.identifier_from_raw_id(raw_id), models.identifier_from_raw_id(raw_id)
    assert isinstance(ours, models.CommunicationIdentifier)
    assert isinstance(their, common.CommunicationIdentifier)
    assert ours == their
    assert their == ours
    assert ours.kind == their.kind


@settings(max_examples=300, deadline=None)
@given(RAW_IDS)
def test_their_identifiers_become_ours(raw_id):
    """An SDK's identifier, written by us and read back, is ours with the same properties."""
    their = theirs.identifier_from_raw_id(raw_id)
    ours = common.deserialize_identifier(common.serialize_identifier(their))
    assert_same(ours, their)
