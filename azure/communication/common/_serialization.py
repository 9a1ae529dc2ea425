"""Identifiers in the JSON of the REST API.

It is ``{"rawId": …}`` with one more member, named after the kind, that holds the properties. Names
are those of the models in camel case, so they are derived rather than listed.
"""

from collections.abc import Mapping
from typing import Any

from ._identifiers import (
    CommunicationCloudEnvironment,
    CommunicationIdentifier,
    CommunicationIdentifierKind,
    CommunicationUserIdentifier,
    CommunicationUserProperties,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsAppProperties,
    MicrosoftTeamsUserIdentifier,
    MicrosoftTeamsUserProperties,
    PhoneNumberIdentifier,
    PhoneNumberProperties,
    TeamsExtensionUserIdentifier,
    TeamsExtensionUserProperties,
    UnknownIdentifier,
    parse_cloud,
)


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


MODELS: dict[str, tuple[Any, Any]] = {
    camel(cls.kind): (cls, properties)
    for cls, properties in (
        (CommunicationUserIdentifier, CommunicationUserProperties),
        (PhoneNumberIdentifier, PhoneNumberProperties),
        (MicrosoftTeamsUserIdentifier, MicrosoftTeamsUserProperties),
        (MicrosoftTeamsAppIdentifier, MicrosoftTeamsAppProperties),
        (TeamsExtensionUserIdentifier, TeamsExtensionUserProperties),
    )
}

# The REST API documents "false if missing" and "public if missing", as the constructors do.
OPTIONAL = frozenset({"is_anonymous", "cloud"})


def serialize_identifier(identifier: CommunicationIdentifier) -> dict[str, Any]:
    """Return an identifier as the REST API's JSON, a ``dict`` of plain values.

    :param identifier: An identifier of this package or of a Communication SDK.
    :type identifier: ~azure.communication.common.CommunicationIdentifier
    :return: ``rawId`` and, if this version knows the kind, a member named after it.
    :rtype: dict[str, any]
    :raises TypeError: If ``identifier`` is not an identifier.
    """
    if not is_identifier(identifier):
        msg = (
            "identifier must have raw_id, kind and properties, but a "
            f"{type(identifier).__name__} does not; use identifier_from_raw_id() for a raw id"
        )
        raise TypeError(msg)
    wire: dict[str, Any] = {"rawId": identifier.raw_id}
    model = _model_of(identifier.kind)
    if model is not None:
        wire[model] = {
            camel(name): _wire_cloud(value) if name == "cloud" else value
            for name, value in identifier.properties.items()
            if value is not None
        }
    return wire


def _model_of(kind: object) -> str | None:
    """Return the name of the member for a kind, which may be of an SDK's own enum."""
    try:
        name = camel(CommunicationIdentifierKind(kind))
    except ValueError:
        return None
    return name if name in MODELS else None


def is_identifier(value: object) -> bool:
    # A model class has the protocol's attributes too, as properties.
    return isinstance(value, CommunicationIdentifier) and isinstance(value.raw_id, str)


def _wire_cloud(cloud: str) -> str:
    known = parse_cloud(cloud)
    # Other text is not changed, because its case may matter to the service.
    return known.lower() if isinstance(known, CommunicationCloudEnvironment) else known


def deserialize_identifier(wire: Mapping[str, Any]) -> CommunicationIdentifier:
    """Return the identifier that the REST API's JSON describes.

    Members that this version does not know are ignored, and ``null`` counts as absent. If there is
    a ``kind``, it decides. JSON that has only a ``rawId``, a kind that this version does not know,
    or no model of its kind becomes an :class:`~azure.communication.common.UnknownIdentifier`, as in
    the other Communication SDKs; :func:`~azure.communication.common.identifier_from_raw_id` reads
    the raw id itself. If there is no ``rawId``, the raw id is made from the model.

    :param wire: The JSON object, for example an identifier in an event.
    :type wire: Mapping[str, any]
    :return: The identifier. The ``is_anonymous`` and ``asserted_id`` of a phone number are
        those of its raw id.
    :rtype: ~azure.communication.common.CommunicationIdentifier
    :raises TypeError: If ``wire`` is not a mapping.
    :raises ValueError: If a member is missing or of the wrong type, or there are two models and no
        kind.
    """
    if not isinstance(wire, Mapping):
        remedy = ""
        if isinstance(wire, (str, bytes)):
            remedy = ": decode JSON with json.loads(), or use identifier_from_raw_id() for a raw id"
        msg = f"wire must be a mapping, the decoded JSON object, not {type(wire).__name__}{remedy}"
        raise TypeError(msg)
    raw_id = _member(wire, "rawId", str)
    kind = _member(wire, "kind", str)
    models = [name for name in MODELS if wire.get(name) is not None and kind in (None, name)]
    if len(models) > 1:
        msg = f"the identifier must have one model, not several: {', '.join(models)}"
        raise ValueError(msg)
    if models:
        return _read_model(models[0], wire, raw_id)
    if raw_id is None:
        msg = f"the identifier must have the member rawId or one of {', '.join(MODELS)}"
        if kind is not None:
            msg = "the member rawId is missing, and there is no model of the kind"
        raise ValueError(msg)
    return UnknownIdentifier(raw_id)


def _read_model(name: str, wire: Mapping[str, Any], raw_id: str | None) -> CommunicationIdentifier:
    model = _member(wire, name, Mapping)
    cls = MODELS[name][0]
    arguments = {}
    for argument in cls.__match_args__:
        member = camel(argument)
        expected = bool if argument == "is_anonymous" else str
        value = _member(model, member, expected, of=f"{name}.")
        if value is not None:
            arguments[argument] = value
        elif argument not in OPTIONAL:
            msg = f"the member {name}.{member} is missing"
            raise ValueError(msg)
    identifier: CommunicationIdentifier = cls(**arguments, raw_id=raw_id)
    return identifier


_JSON_TYPES = {str: "string", bool: "boolean", Mapping: "object"}


def _member(wire: Mapping[str, Any], name: str, expected: Any, of: str = "") -> Any:
    """Return a member of a JSON object, or None if it is absent."""
    value = wire.get(name)
    if value is not None and not isinstance(value, expected):
        came = type(value).__name__
        msg = f"the member {of}{name} must be a JSON {_JSON_TYPES[expected]}, not {came}"
        raise ValueError(msg)
    return value
