"""Identifiers as the REST API's JSON has them, and what pydantic is told about that.

``{"rawId": …}`` and beside it one member, named for the kind, that holds the properties.
Names are those of the models in camel case, so they are derived and not listed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

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
    identifier_from_raw_id,
    parse_cloud,
)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


_MODELS: dict[str, tuple[Any, Any]] = {
    _camel(cls.kind): (cls, properties)
    for cls, properties in (
        (CommunicationUserIdentifier, CommunicationUserProperties),
        (PhoneNumberIdentifier, PhoneNumberProperties),
        (MicrosoftTeamsUserIdentifier, MicrosoftTeamsUserProperties),
        (MicrosoftTeamsAppIdentifier, MicrosoftTeamsAppProperties),
        (TeamsExtensionUserIdentifier, TeamsExtensionUserProperties),
    )
}

# The REST API documents "false if missing" and "public if missing", as the constructors have it.
_OPTIONAL = frozenset({"is_anonymous", "cloud"})


def serialize_identifier(identifier: CommunicationIdentifier) -> dict[str, Any]:
    """Return an identifier as the REST API's JSON, a ``dict`` of plain values.

    :param identifier: An identifier of this package or of a Communication SDK.
    :type identifier: ~azure.communication.common.CommunicationIdentifier
    :return: ``rawId`` and, unless the kind is unknown, a member named for the kind.
    :rtype: dict[str, any]
    :raises TypeError: If ``identifier`` is not an identifier.
    """
    if not _is_identifier(identifier):
        msg = (
            "identifier must have raw_id, kind and properties, and a "
            f"{type(identifier).__name__} does not; identifier_from_raw_id() reads a raw id"
        )
        raise TypeError(msg)
    wire: dict[str, Any] = {"rawId": identifier.raw_id}
    if identifier.kind != CommunicationIdentifierKind.UNKNOWN:
        wire[_camel(identifier.kind)] = {
            _camel(name): _wire_cloud(value) if name == "cloud" else value
            for name, value in identifier.properties.items()
            if value is not None
        }
    return wire


def _is_identifier(value: object) -> bool:
    # A model class has the protocol's attributes too, as properties.
    return isinstance(value, CommunicationIdentifier) and isinstance(value.raw_id, str)


def _wire_cloud(cloud: str) -> str:
    known = parse_cloud(cloud)
    # A text is not ours to change: the service may tell its case apart.
    return known.lower() if isinstance(known, CommunicationCloudEnvironment) else known


def deserialize_identifier(wire: Mapping[str, Any]) -> CommunicationIdentifier:
    """Return the identifier that the REST API's JSON describes.

    Members that this version does not know are ignored, and ``null`` counts as absent. JSON with
    a ``rawId`` alone gives an :class:`~azure.communication.common.UnknownIdentifier`, as in the
    other Communication SDKs; :func:`~azure.communication.common.identifier_from_raw_id` reads the
    raw id itself. Without ``rawId``, the raw id is made from the model.

    :param wire: The JSON object, for example an identifier in an event.
    :type wire: Mapping[str, any]
    :return: The identifier. The ``is_anonymous`` and ``asserted_id`` of a phone number are
        those of its raw id.
    :rtype: ~azure.communication.common.CommunicationIdentifier
    :raises TypeError: If ``wire`` is not a mapping.
    :raises ValueError: If a member is missing or of the wrong type, or there are two models.
    """
    if not isinstance(wire, Mapping):
        msg = f"wire must be a mapping, the decoded JSON object, not {type(wire).__name__}"
        raise TypeError(msg)
    raw_id = _member(wire, "rawId", str)
    models = [name for name in _MODELS if wire.get(name) is not None]
    if len(models) > 1:
        msg = f"an identifier has one model, not several: {', '.join(models)}"
        raise ValueError(msg)
    if models:
        return _read_model(models[0], wire, raw_id)
    if raw_id is None:
        msg = f"an identifier has the member rawId or one of {', '.join(_MODELS)}"
        raise ValueError(msg)
    return UnknownIdentifier(raw_id)


def _read_model(name: str, wire: Mapping[str, Any], raw_id: str | None) -> CommunicationIdentifier:
    model = _member(wire, name, Mapping)
    cls = _MODELS[name][0]
    arguments = {}
    for argument in cls.__match_args__:
        member = _camel(argument)
        expected = bool if argument == "is_anonymous" else str
        value = _member(model, member, expected, of=f"{name}.")
        if value is not None:
            arguments[argument] = value
        elif argument not in _OPTIONAL:
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


def pydantic_core_schema(cls: type) -> dict[str, Any]:
    """Return pydantic's schema of a model class, or of the protocol: a plain dict."""
    return {
        "type": "function-plain",
        "function": {"type": "no-info", "function": partial(_validate, cls)},
        "serialization": {"type": "function-plain", "function": serialize_identifier},
    }


def _validate(cls: type, value: object) -> Any:
    if _is_identifier(value):
        if isinstance(value, cls):
            return value
        value = serialize_identifier(cast("CommunicationIdentifier", value))  # an SDK's own
    if isinstance(value, str):
        identifier = identifier_from_raw_id(value)
    elif isinstance(value, Mapping):
        identifier = deserialize_identifier(value)
    else:
        # pydantic turns a ValueError into its ValidationError, and lets a TypeError pass.
        msg = f"expected an identifier, a raw id or its JSON, not {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004
    if not isinstance(identifier, cls):
        msg = f"expected a raw id or JSON of {cls.__name__}, not of {type(identifier).__name__}"
        raise ValueError(msg)  # noqa: TRY004
    return identifier


def pydantic_json_schema(cls: type, mode: str) -> dict[str, Any]:
    """Return the JSON schema of what pydantic reads ("validation") or writes ("serialization")."""
    any_kind = cls is CommunicationIdentifier
    forms = [
        _model_schema(name, properties, mode)
        for name, (model, properties) in _MODELS.items()
        if any_kind or model is cls
    ]
    if any_kind or not forms:
        forms.append(_object_schema({"rawId": {"type": "string"}}, ["rawId"]))
    if mode == "validation":
        forms.insert(0, {"type": "string", "description": "A raw id."})
    return {"title": cls.__name__, **(forms[0] if len(forms) == 1 else {"anyOf": forms})}


def _model_schema(name: str, properties: Any, mode: str) -> dict[str, Any]:
    optional = _OPTIONAL if mode == "validation" else frozenset()
    model = _object_schema(
        {
            _camel(key): {"type": "boolean" if key == "is_anonymous" else "string"}
            for key in properties.__annotations__
        },
        [_camel(key) for key in sorted(properties.__required_keys__ - optional)],
    )
    return _object_schema(
        {"rawId": {"type": "string"}, name: model},
        [name] if mode == "validation" else ["rawId", name],
    )


def _object_schema(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}
