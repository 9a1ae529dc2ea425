"""The identifier models, and the one table for reading and writing raw ids.

An identifier is its class and its raw id; ``properties`` are read from the raw id when asked for.
The arguments of a constructor are kept only where the raw id says something else. That makes
parsing cheap, and leaves one place, ``_read``, that knows what a raw id means to a class.

This module is the lowest layer: it imports neither azure-core nor pydantic nor other modules of the
package.
"""

from collections.abc import Mapping
from enum import Enum, EnumMeta
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Protocol,
    TypedDict,
    TypeVar,
    final,
    runtime_checkable,
)

if TYPE_CHECKING:
    from abc import ABCMeta as _ProtocolMeta
else:
    _ProtocolMeta = type(Protocol)


class _AnyCaseMeta(EnumMeta):
    """Finds members by name in any case, as azure-core's metaclass does, but without its import."""

    def __getitem__(cls, name: str) -> Any:
        return super().__getitem__(_upper(name))

    def __getattr__(cls, name: str) -> Any:
        # Names with an underscore are looked up before the class has any members.
        if not name.startswith("_") and _upper(name) in cls._member_map_:
            return cls._member_map_[_upper(name)]
        raise AttributeError(name)


def _upper(name: str) -> str:
    # Some letters outside ASCII have ASCII capitals: the dotless i, the long s.
    return name.upper() if name.isascii() else name


class _AnyCaseEnum(str, Enum, metaclass=_AnyCaseMeta):
    """A text enum whose values are its names, in upper or lower case."""

    @classmethod
    def _missing_(cls, value: object) -> "Enum | None":
        return cls._member_map_.get(_upper(value)) if isinstance(value, str) else None


class CommunicationIdentifierKind(_AnyCaseEnum):
    """The kind of an identifier. Names and values are found in any case.

    Do not rely on ``UNKNOWN``: a later version may know the kind. ``raw_id`` is always available.
    """

    UNKNOWN = "unknown"
    COMMUNICATION_USER = "communication_user"
    PHONE_NUMBER = "phone_number"
    MICROSOFT_TEAMS_USER = "microsoft_teams_user"
    MICROSOFT_TEAMS_APP = "microsoft_teams_app"
    TEAMS_EXTENSION_USER = "teams_extension_user"


class CommunicationCloudEnvironment(_AnyCaseEnum):
    """The cloud that an identifier belongs to. Names and values are found in any case."""

    PUBLIC = "PUBLIC"
    DOD = "DOD"
    GCCH = "GCCH"


def parse_cloud(cloud: object) -> CommunicationCloudEnvironment | str:
    """Return the cloud of that name, or the text itself: the service may add clouds.

    None is the public cloud, as in the SDKs, whose users pass on values that may be missing from
    JSON.
    """
    if cloud is None:
        return _PUBLIC
    text = _text("cloud", cloud)
    try:
        return CommunicationCloudEnvironment(text)
    except ValueError:
        return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        msg = f"{name} must be a str, not {type(value).__name__}{_remedy_for_type(value)}"
        raise TypeError(msg)
    # The plain text of a str subclass, such as an enum member, so that its repr can be evaluated.
    return str.__str__(value)


def _remedy_for_type(value: object) -> str:
    if isinstance(value, bytes):
        return ": decode it"
    if isinstance(value, Mapping):
        return ": use deserialize_identifier() for JSON"
    if hasattr(value, "raw_id"):
        return ": it is already an identifier"
    if value is None:
        return ": is the field it comes from missing?"
    if isinstance(value, int):
        return ": write it as text"
    return ""


def _flag(name: str, value: object) -> bool:
    """Return a flag; None, for JSON that leaves it out, is False."""
    if value is not None and not isinstance(value, bool):
        msg = f"{name} must be a bool, not {type(value).__name__}"
        raise TypeError(msg)
    return bool(value)


def _core_schema(cls: type, source: Any, handler: Any) -> Any:
    # The one import of a higher layer, made late to keep the import of identifiers cheap.
    from ._pydantic import pydantic_core_schema

    return pydantic_core_schema(cls)


def _json_schema(cls: type, schema: Any, handler: Any) -> Any:
    from ._pydantic import pydantic_json_schema

    return pydantic_json_schema(cls, handler.mode)


class _PydanticProtocolMeta(_ProtocolMeta):
    """Lets pydantic understand the protocol.

    Methods in the protocol's own body would become members that every identifier must have, and
    the SDKs' classes have no such method.
    """

    __get_pydantic_core_schema__ = _core_schema
    __get_pydantic_json_schema__ = _json_schema


@runtime_checkable
class CommunicationIdentifier(Protocol, metaclass=_PydanticProtocolMeta):
    """The attributes of every identifier, including those of the Communication SDKs.

    A pydantic field of this type takes any identifier.
    """

    @property
    def raw_id(self) -> str:
        """The raw id, which encodes kind, cloud and id in one text."""
        ...

    @property
    def kind(self) -> Any:
        """The kind of identifier, a :class:`CommunicationIdentifierKind`.

        Each SDK has its own enum, and no type other than ``Any`` fits them all.
        """
        ...

    @property
    def properties(self) -> Mapping[str, Any]:
        """What the identifier consists of; the keys depend on the kind."""
        ...


class CommunicationUserProperties(TypedDict):
    """The properties of a :class:`CommunicationUserIdentifier`."""

    id: str
    """The user's id as the Communication Identity service returned it."""


class _PhoneNumberValue(TypedDict):
    """The property that every phone number has."""

    value: str
    """The phone number, in E.164 format, or what stands for it in the raw id."""


# Two classes, because typing.NotRequired needs Python 3.11.
class PhoneNumberProperties(_PhoneNumberValue, total=False):
    """The properties of a :class:`PhoneNumberIdentifier`."""

    is_anonymous: bool
    """Whether the caller hides the number. Present if the identifier was made with a raw id."""
    asserted_id: str
    """Distinguishes connections that share the number. Present if the raw id has one."""


class MicrosoftTeamsUserProperties(TypedDict):
    """The properties of a :class:`MicrosoftTeamsUserIdentifier`."""

    user_id: str
    """The user's Entra object id; for an anonymous user, another unique id."""
    is_anonymous: bool
    """Whether the user joined without signing in."""
    cloud: CommunicationCloudEnvironment | str
    """The user's cloud; a text if this version does not know it."""


class MicrosoftTeamsAppProperties(TypedDict):
    """The properties of a :class:`MicrosoftTeamsAppIdentifier`."""

    app_id: str
    """The application's id."""
    cloud: CommunicationCloudEnvironment | str
    """The application's cloud; a text if this version does not know it."""


class TeamsExtensionUserProperties(TypedDict):
    """The properties of a :class:`TeamsExtensionUserIdentifier`."""

    user_id: str
    """The user's id."""
    tenant_id: str
    """The id of the user's Entra tenant."""
    resource_id: str
    """The id of the Communication Services resource."""
    cloud: CommunicationCloudEnvironment | str
    """The user's cloud; a text if this version does not know it."""


_PropertiesT = TypeVar("_PropertiesT", bound=Mapping[str, Any])


class _Identifier(Generic[_PropertiesT]):
    """An immutable value, compared by raw id.

    ``__match_args__`` of a subclass names the arguments of its constructor, each of which is an
    attribute too.
    """

    __slots__ = ("_given", "_raw_id")

    _raw_id: str
    _given: _PropertiesT | None

    __get_pydantic_core_schema__: ClassVar[Any] = classmethod(_core_schema)
    __get_pydantic_json_schema__: ClassVar[Any] = classmethod(_json_schema)

    @staticmethod
    def _read(raw_id: str) -> Any:
        """Return the properties that this class reads from ``raw_id``, which can be any text."""

    def _hold(self, raw_id: str, properties: _PropertiesT) -> None:
        _set_raw_id(self, raw_id)
        _set_given(self, None if properties == self._read(raw_id) else properties)

    @property
    def raw_id(self) -> str:
        """The raw id, which encodes kind, cloud and id in one text."""
        return self._raw_id

    @property
    def properties(self) -> _PropertiesT:
        """What the identifier consists of, in a new ``dict`` each time."""
        properties: Any = self._read(self._raw_id) if self._given is None else dict(self._given)
        return properties  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        raw_id = getattr(other, "raw_id", None)
        return self._raw_id == raw_id if isinstance(raw_id, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw_id)

    if not TYPE_CHECKING:  # a checker that sees these two would accept every assignment

        def __setattr__(self, name, value):
            raise AttributeError(self._immutable(name))

        def __delattr__(self, name):
            raise AttributeError(self._immutable(name))

    def _immutable(self, name: str) -> str:
        return f"cannot change {name!r}: a {type(self).__name__} is immutable; make a new one"

    def _arguments(self) -> dict[str, Any]:
        """Return keyword arguments that recreate this identifier."""
        cls: Any = type(self)
        values = {name: getattr(self, name) for name in cls.__match_args__}
        # A cloud as plain text can be evaluated and unpickled without this package.
        arguments = {k: str.__str__(v) if isinstance(v, str) else v for k, v in values.items()}
        twin = cls(**arguments)
        if (twin.raw_id, twin.properties) != (self.raw_id, self.properties):
            arguments["raw_id"] = self._raw_id
        return arguments

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({arguments})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments()), ()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Accept the state of an SDK's own identifier.

        A pickle names its class by module. Once that module has this class under the same name,
        older pickles are read by this class, with the attributes of the SDK's class.
        """
        if hasattr(self, "_raw_id"):
            msg = f"a {type(self).__name__} is immutable and takes no state"
            raise TypeError(msg)
        cls: Any = type(self)
        raw_id, properties = state["raw_id"], state["properties"]
        arguments = {name: properties[name] for name in cls.__match_args__ if name in properties}
        arguments = arguments or {"identifier": raw_id}  # an unknown identifier has no others
        cls.__init__(self, **arguments)
        if (self.raw_id, self.properties) != (raw_id, properties):
            cls.__init__(self, **arguments, raw_id=raw_id)

    def __copy__(self) -> "_Identifier[_PropertiesT]":
        return self

    def __deepcopy__(self, memo: object) -> "_Identifier[_PropertiesT]":
        return self


# The slots' own setters, because __setattr__ refuses.
_slots: Any = _Identifier
_set_raw_id = _slots._raw_id.__set__
_set_given = _slots._given.__set__


@final
class CommunicationUserIdentifier(_Identifier[CommunicationUserProperties]):
    """A user of Azure Communication Services.

    :param str id: The user's id as the Communication Identity service returned it.
    :keyword raw_id: The raw id, if it is not ``id``.
    :paramtype raw_id: str or None
    :raises TypeError: If an argument is not a ``str``.
    """

    __slots__ = ()
    __match_args__ = ("id",)

    kind: Any = CommunicationIdentifierKind.COMMUNICATION_USER
    """The kind of identifier, untyped because each SDK has its own enum; see the protocol."""

    def __init__(self, id: str, *, raw_id: str | None = None) -> None:
        properties: CommunicationUserProperties = {"id": _text("id", id)}
        self._hold(properties["id"] if raw_id is None else _text("raw_id", raw_id), properties)

    @staticmethod
    def _read(raw_id: str) -> CommunicationUserProperties:
        return {"id": raw_id}

    @property
    def id(self) -> str:
        """The user's id."""
        return self.properties["id"]


@final
class PhoneNumberIdentifier(_Identifier[PhoneNumberProperties]):
    """A phone number.

    As in the Communication SDKs, ``properties`` has ``is_anonymous`` and ``asserted_id`` only when
    there was a raw id to read them from: a number alone is sent as a number alone.

    :param str value: The phone number, in E.164 format; it is not checked.
    :keyword raw_id: The raw id, if known; otherwise it is made from ``value``.
    :paramtype raw_id: str or None
    :raises TypeError: If an argument is not a ``str``.
    """

    __slots__ = ()
    __match_args__ = ("value",)

    kind: Any = CommunicationIdentifierKind.PHONE_NUMBER
    """The kind of identifier, untyped because each SDK has its own enum; see the protocol."""

    def __init__(self, value: str, *, raw_id: str | None = None) -> None:
        value = _text("value", value)
        if raw_id is None:
            self._hold(_format(PhoneNumberIdentifier, value), {"value": value})
        else:
            raw_id = _text("raw_id", raw_id)
            self._hold(raw_id, {**self._read(raw_id), "value": value})

    @staticmethod
    def _read(raw_id: str) -> PhoneNumberProperties:
        value = raw_id[len("4:") :]  # whatever the prefix is, as the SDKs read it
        properties: PhoneNumberProperties = {"value": value, "is_anonymous": value == "anonymous"}
        _, underscore, asserted_id = value.rpartition("_")
        if underscore and asserted_id:
            properties["asserted_id"] = asserted_id
        return properties

    @property
    def value(self) -> str:
        """The phone number."""
        return self.properties["value"]


@final
class MicrosoftTeamsUserIdentifier(_Identifier[MicrosoftTeamsUserProperties]):
    """A Microsoft Teams user.

    :param str user_id: The user's Entra object id; for an anonymous user, another unique id.
    :keyword is_anonymous: Whether the user joined without signing in. None is False.
    :paramtype is_anonymous: bool or None
    :keyword cloud: The user's cloud, in any case. An unknown cloud is kept
        as it is, and None is the public cloud.
    :paramtype cloud: str or ~azure.communication.common.CommunicationCloudEnvironment or None
    :keyword raw_id: The raw id, if known; otherwise it is made from the other arguments.
    :paramtype raw_id: str or None
    :raises TypeError: If an argument has the wrong type.
    """

    __slots__ = ()
    __match_args__ = ("user_id", "is_anonymous", "cloud")

    kind: Any = CommunicationIdentifierKind.MICROSOFT_TEAMS_USER
    """The kind of identifier, untyped because each SDK has its own enum; see the protocol."""

    def __init__(
        self,
        user_id: str,
        *,
        is_anonymous: bool | None = False,
        cloud: CommunicationCloudEnvironment | str | None = "PUBLIC",
        raw_id: str | None = None,
    ) -> None:
        user_id, cloud = _text("user_id", user_id), parse_cloud(cloud)
        is_anonymous = _flag("is_anonymous", is_anonymous)
        if raw_id is None:
            raw_id = _format(MicrosoftTeamsUserIdentifier, user_id, cloud, is_anonymous)
        self._hold(
            _text("raw_id", raw_id),
            {"user_id": user_id, "is_anonymous": is_anonymous, "cloud": cloud},
        )

    @staticmethod
    def _read(raw_id: str) -> MicrosoftTeamsUserProperties:
        cloud, is_anonymous, user_id = _parse(raw_id)
        return {"user_id": user_id, "is_anonymous": is_anonymous, "cloud": cloud}

    @property
    def user_id(self) -> str:
        """The user's id."""
        return self.properties["user_id"]

    @property
    def is_anonymous(self) -> bool:
        """Whether the user joined without signing in."""
        return self.properties["is_anonymous"]

    @property
    def cloud(self) -> CommunicationCloudEnvironment | str:
        """The user's cloud."""
        return self.properties["cloud"]


@final
class MicrosoftTeamsAppIdentifier(_Identifier[MicrosoftTeamsAppProperties]):
    """A Microsoft Teams application.

    :param str app_id: The application's id.
    :keyword cloud: The application's cloud, in any case. An unknown cloud is kept
        as it is, and None is the public cloud.
    :paramtype cloud: str or ~azure.communication.common.CommunicationCloudEnvironment or None
    :keyword raw_id: The raw id, if known; otherwise it is made from the other arguments.
    :paramtype raw_id: str or None
    :raises TypeError: If an argument is not a ``str``.
    """

    __slots__ = ()
    __match_args__ = ("app_id", "cloud")

    kind: Any = CommunicationIdentifierKind.MICROSOFT_TEAMS_APP
    """The kind of identifier, untyped because each SDK has its own enum; see the protocol."""

    def __init__(
        self,
        app_id: str,
        *,
        cloud: CommunicationCloudEnvironment | str | None = "PUBLIC",
        raw_id: str | None = None,
    ) -> None:
        app_id, cloud = _text("app_id", app_id), parse_cloud(cloud)
        if raw_id is None:
            raw_id = _format(MicrosoftTeamsAppIdentifier, app_id, cloud)
        self._hold(_text("raw_id", raw_id), {"app_id": app_id, "cloud": cloud})

    @staticmethod
    def _read(raw_id: str) -> MicrosoftTeamsAppProperties:
        cloud, _, app_id = _parse(raw_id)
        return {"app_id": app_id, "cloud": cloud}

    @property
    def app_id(self) -> str:
        """The application's id."""
        return self.properties["app_id"]

    @property
    def cloud(self) -> CommunicationCloudEnvironment | str:
        """The application's cloud."""
        return self.properties["cloud"]


@final
class TeamsExtensionUserIdentifier(_Identifier[TeamsExtensionUserProperties]):
    """A user of the Teams phone extension: a Teams user within a Communication Services resource.

    :keyword str user_id: The user's id.
    :keyword str tenant_id: The id of the user's Entra tenant.
    :keyword str resource_id: The id of the Communication Services resource.
    :keyword cloud: The user's cloud, in any case. An unknown cloud is kept
        as it is, and None is the public cloud.
    :paramtype cloud: str or ~azure.communication.common.CommunicationCloudEnvironment or None
    :keyword raw_id: The raw id, if known; otherwise it is made from the other arguments.
    :paramtype raw_id: str or None
    :raises TypeError: If an argument is not a ``str``.
    """

    __slots__ = ()
    __match_args__ = ("user_id", "tenant_id", "resource_id", "cloud")

    kind: Any = CommunicationIdentifierKind.TEAMS_EXTENSION_USER
    """The kind of identifier, untyped because each SDK has its own enum; see the protocol."""

    def __init__(
        self,
        *,
        user_id: str,
        tenant_id: str,
        resource_id: str,
        cloud: CommunicationCloudEnvironment | str | None = "PUBLIC",
        raw_id: str | None = None,
    ) -> None:
        properties: TeamsExtensionUserProperties = {
            "user_id": _text("user_id", user_id),
            "tenant_id": _text("tenant_id", tenant_id),
            "resource_id": _text("resource_id", resource_id),
            "cloud": parse_cloud(cloud),
        }
        if raw_id is None:
            rest = f"{properties['resource_id']}_{properties['tenant_id']}_{properties['user_id']}"
            raw_id = _format(TeamsExtensionUserIdentifier, rest, properties["cloud"])
        self._hold(_text("raw_id", raw_id), properties)

    @staticmethod
    def _read(raw_id: str) -> TeamsExtensionUserProperties:
        cloud, _, rest = _parse(raw_id)
        resource_id, _, rest = rest.partition("_")
        tenant_id, _, user_id = rest.partition("_")
        return {
            "user_id": user_id,
            "tenant_id": tenant_id,
            "resource_id": resource_id,
            "cloud": cloud,
        }

    @property
    def user_id(self) -> str:
        """The user's id."""
        return self.properties["user_id"]

    @property
    def tenant_id(self) -> str:
        """The id of the user's Entra tenant."""
        return self.properties["tenant_id"]

    @property
    def resource_id(self) -> str:
        """The id of the Communication Services resource."""
        return self.properties["resource_id"]

    @property
    def cloud(self) -> CommunicationCloudEnvironment | str:
        """The user's cloud."""
        return self.properties["cloud"]


@final
class UnknownIdentifier(_Identifier[Mapping[str, Any]]):
    """An identifier of a kind that this version does not know. Its ``properties`` are empty.

    A later version may give such an identifier a kind, so rely on ``raw_id`` and not on ``kind``.

    :param str identifier: The raw id.
    :raises TypeError: If ``identifier`` is not a ``str``.
    """

    __slots__ = ()
    __match_args__ = ("identifier",)

    kind: Any = CommunicationIdentifierKind.UNKNOWN
    """The kind of identifier, untyped because each SDK has its own enum; see the protocol."""

    def __init__(self, identifier: str) -> None:
        self._hold(_text("identifier", identifier), {})

    @staticmethod
    def _read(raw_id: str) -> dict[str, Any]:
        return {}

    @property
    def identifier(self) -> str:
        """The raw id."""
        return self._raw_id


_PUBLIC = CommunicationCloudEnvironment.PUBLIC
_DOD = CommunicationCloudEnvironment.DOD
_GCCH = CommunicationCloudEnvironment.GCCH

# Prefix: class, cloud, is_anonymous. What follows "acs:" is a Communication user unless it has
# three parts. The raw id of such a user is its id, so there is nothing to format.
_PREFIXES: dict[str, tuple[type[_Identifier[Any]], CommunicationCloudEnvironment, bool]] = {
    "4:": (PhoneNumberIdentifier, _PUBLIC, False),
    "8:acs:": (TeamsExtensionUserIdentifier, _PUBLIC, False),
    "8:dod-acs:": (TeamsExtensionUserIdentifier, _DOD, False),
    "8:gcch-acs:": (TeamsExtensionUserIdentifier, _GCCH, False),
    "8:spool:": (CommunicationUserIdentifier, _PUBLIC, False),
    "8:orgid:": (MicrosoftTeamsUserIdentifier, _PUBLIC, False),
    "8:dod:": (MicrosoftTeamsUserIdentifier, _DOD, False),
    "8:gcch:": (MicrosoftTeamsUserIdentifier, _GCCH, False),
    "8:teamsvisitor:": (MicrosoftTeamsUserIdentifier, _PUBLIC, True),
    "28:orgid:": (MicrosoftTeamsAppIdentifier, _PUBLIC, False),
    "28:dod:": (MicrosoftTeamsAppIdentifier, _DOD, False),
    "28:gcch:": (MicrosoftTeamsAppIdentifier, _GCCH, False),
}
_NO_PREFIX = (UnknownIdentifier, _PUBLIC, False)
_PREFIX_OF: dict[tuple[object, ...], str] = {row: prefix for prefix, row in _PREFIXES.items()}


def _format(
    cls: type,
    rest: str,
    cloud: CommunicationCloudEnvironment | str = _PUBLIC,
    is_anonymous: bool = False,
) -> str:
    # Anonymous users have one prefix for all clouds, and a cloud that we do not know has none.
    prefix = _PREFIX_OF.get((cls, cloud, is_anonymous)) or _PREFIX_OF[cls, _PUBLIC, is_anonymous]
    return prefix + rest


def _prefix(raw_id: str) -> str:
    # Up to the second colon. In every row the first one is at 1 or 2, so a search from 3 finds the
    # second one, or ends at a text that is in no row.
    return raw_id[: raw_id.find(":", 3) + 1]


def _parse(raw_id: str) -> tuple[CommunicationCloudEnvironment, bool, str]:
    """Return what a raw id with two colons says: cloud, is_anonymous and the rest."""
    prefix = _prefix(raw_id)
    _, cloud, is_anonymous = _PREFIXES.get(prefix, _NO_PREFIX)
    return cloud, is_anonymous, raw_id[len(prefix) :]


def identifier_from_raw_id(raw_id: str) -> CommunicationIdentifier:
    """Return the identifier that a raw id stands for.

    Use it to restore an identifier from a stored raw id. Every text is accepted, and the
    identifier's ``raw_id`` is that text; a kind that this version does not know becomes an
    :class:`~azure.communication.common.UnknownIdentifier`.

    :param str raw_id: The raw id, for example ``"4:+14255550123"``.
    :return: The identifier.
    :rtype: ~azure.communication.common.CommunicationIdentifier
    :raises TypeError: If ``raw_id`` is not a ``str``.
    """
    if type(raw_id) is not str:
        raw_id = _text("raw_id", raw_id)
    # Only a phone number's prefix has one colon.
    cls = (_PREFIXES.get(_prefix(raw_id)) or _PREFIXES.get(raw_id[:2], _NO_PREFIX))[0]
    if cls is TeamsExtensionUserIdentifier and raw_id.count("_") != 2:
        cls = CommunicationUserIdentifier
    # Bypasses the constructor, which would read properties that the raw id holds anyway.
    identifier: Any = object.__new__(cls)
    _set_raw_id(identifier, raw_id)
    _set_given(identifier, None)
    return identifier  # type: ignore[no-any-return]
