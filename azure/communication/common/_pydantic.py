"""The pydantic schemas of identifiers; imported only by the hooks of the models."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from ._identifiers import CommunicationIdentifier, identifier_from_raw_id
from ._serialization import (
    MODELS,
    OPTIONAL,
    camel,
    deserialize_identifier,
    is_identifier,
    serialize_identifier,
)


def pydantic_core_schema(cls: type) -> dict[str, Any]:
    """Return pydantic's schema of a model class, or of the protocol: a plain dict."""
    return {
        "type": "function-plain",
        "function": {"type": "no-info", "function": partial(_validate, cls)},
        "serialization": {"type": "function-plain", "function": serialize_identifier},
    }


def _validate(cls: type, value: object) -> Any:
    if is_identifier(value):
        if isinstance(value, cls):
            return value
        value = serialize_identifier(cast("CommunicationIdentifier", value))  # an SDK's own
    if isinstance(value, str):
        identifier = identifier_from_raw_id(value)
    elif isinstance(value, Mapping):
        identifier = deserialize_identifier(value)
    else:
        # pydantic turns a ValueError into its ValidationError, and lets a TypeError through.
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
        for name, (model, properties) in MODELS.items()
        if any_kind or model is cls
    ]
    if any_kind or not forms:
        forms.append(_object_schema({"rawId": {"type": "string"}}, ["rawId"]))
    if mode == "validation":
        forms.insert(0, {"type": "string", "description": "A raw id."})
    return {"title": cls.__name__, **(forms[0] if len(forms) == 1 else {"anyOf": forms})}


def _model_schema(name: str, properties: Any, mode: str) -> dict[str, Any]:
    optional = OPTIONAL if mode == "validation" else frozenset()
    model = _object_schema(
        {
            camel(key): {"type": "boolean" if key == "is_anonymous" else "string"}
            for key in properties.__annotations__
        },
        [camel(key) for key in sorted(properties.__required_keys__ - optional)],
    )
    return _object_schema(
        {"rawId": {"type": "string"}, name: model},
        [name] if mode == "validation" else ["rawId", name],
    )


def _object_schema(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}
