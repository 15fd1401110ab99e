"""The one settings vocabulary, and the values it is parsed into.

The same names work in Django's ``OPTIONS``, in a SQLAlchemy URL's query and in the environment
(``patroni_urls``, ``patroni_target``, ...), and without the prefix as keywords of :class:`PatroniConfig`.
Everything that can be wrong about a setting is found here, before anything is connected.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from typing import TYPE_CHECKING, Any, Final, Self

from patroni_db.addresses import Address, ApiUrl, parse_host_pattern
from patroni_db.durations import parsed
from patroni_db.errors import ConfigError
from patroni_db.escaping import quoted
from patroni_db.selection import Target
from patroni_db.topology import MAX_LSN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    from patroni_db.selection import TargetName

__all__ = ["ENV_API_URL", "PREFIX", "PatroniConfig", "is_setting", "split_options"]

PREFIX: Final = "patroni_"
ENV_API_URL: Final = "PATRONI_API_URL"

# A look every 10 ms is as much as an API can be asked for.
_LEAST_REFRESH: Final = 0.01
_SIZE: Final = re.compile(r"\s*(\d{1,20})\s*(B|kB|MB|GB|TB)?\s*", re.ASCII)
_SIZE_UNITS: Final = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_MAX_PORT: Final = 65535
_NAMESPACE: Final = "/service"  # Patroni's own default
_ETCD_PORT: Final = 2379
_TRUSTED: Final = "trusted"
_MEMBERS: Final = "members"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PatroniConfig:
    """All settings of one use of a cluster. Immutable, hashable; every value is checked when it is made.

    Each parameter takes its final type or the text a URL or the environment would hold. Durations are from 1 ms to one
    day, `refresh` from 10 ms on; `failover_timeout` and `causal_wait` may also be 0.

    :param urls: REST endpoints, as list or comma-separated text. Seeds only: members are learned. Without
        any, the environment variable ``PATRONI_API_URL`` is read
    :param target: what connections are for, see :class:`~patroni_db.selection.Target`
    :param scope: refuse a cluster whose scope differs
    :param max_lag: bytes, or text such as ``16MB`` (PostgreSQL's units, 1 kB = 1024 bytes); a replica with
        more, or unknown, lag is not eligible. Not with target ``primary``
    :param tags: tag sets in order of preference: ``zone=a,fast=true;zone=b;``, or mappings
    :param failover_timeout: seconds that getting a connection may wait for an eligible server
    :param causal_wait: seconds that a read may wait for a replica to show what its causal token stands for, before
        it goes to the primary
    :param refresh: seconds between two background looks while all is well; jittered
    :param timeout: seconds for one REST request, from resolving the name to the last byte
    :param ca: path of the CA certificates that sign the REST API's certificate
    :param cert: path of the client certificate
    :param key: path of the client certificate's key
    :param user: name for HTTP basic authentication
    :param password: password for HTTP basic authentication; never in a repr, log or error
    :param password_for: whom the password is sent to: ``trusted``, which are `urls`, members in `allowed_hosts` and
        APIs at a reachable address of `address_map`; or ``members``, every API that is learned
    :param allowed_hosts: names, ``*.suffixes`` or networks (CIDR) that a member's address must be in
    :param port: connect to this port on each member's host instead of the advertised one
    :param address_map: ``{advertised: reachable}`` addresses, or ``10.0.0.1:5432=localhost:5433,...``
    :param fallback_hosts: ``host:port,...`` tried, with role check, while no Patroni API has ever answered
    :param etcd: client URLs of Patroni's etcd, as list or comma-separated text, by default on port 2379: its leader
        key is watched, so that a change of leader is looked at when it happens
    :param namespace: Patroni's ``namespace``, under which its keys are
    :param etcd_user: name to authenticate with at etcd, where its authentication is enabled
    :param etcd_password: password of that user; never in a repr, log or error
    :param etcd_ca: path of the CA certificates that sign etcd's certificate; by default `ca`
    :param etcd_cert: path of the client certificate for etcd; by default `cert`
    :param etcd_key: path of that certificate's key; by default `key`
    :raises ConfigError: naming the setting
    """

    urls: tuple[str, ...] = ()
    target: Target = Target.PRIMARY
    scope: str | None = None
    max_lag: int | None = None
    tags: tuple[Mapping[str, str], ...] = ()
    failover_timeout: float = 60.0
    causal_wait: float = 0.1
    refresh: float = 2.0
    timeout: float = 2.0
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    password_for: str = _TRUSTED
    allowed_hosts: tuple[str, ...] = ()
    port: int | None = None
    address_map: tuple[tuple[Address, Address], ...] = ()
    fallback_hosts: tuple[Address, ...] = ()
    etcd: tuple[str, ...] = ()
    namespace: str = _NAMESPACE
    etcd_user: str | None = None
    etcd_password: str | None = dataclasses.field(default=None, repr=False)
    etcd_ca: str | None = None
    etcd_cert: str | None = None
    etcd_key: str | None = None

    if TYPE_CHECKING:
        # What the constructor accepts: final values, or the text of a URL or the environment.
        def __init__(  # noqa: PLR0913 - one keyword for each setting
            self,
            *,
            urls: str | Iterable[str] = (),
            target: Target | TargetName = Target.PRIMARY,
            scope: str | None = None,
            max_lag: int | str | None = None,
            tags: str | Iterable[Mapping[str, str]] = (),
            failover_timeout: float | str = 60.0,
            causal_wait: float | str = 0.1,
            refresh: float | str = 2.0,
            timeout: float | str = 2.0,
            ca: str | os.PathLike[str] | None = None,
            cert: str | os.PathLike[str] | None = None,
            key: str | os.PathLike[str] | None = None,
            user: str | None = None,
            password: str | None = None,
            password_for: Literal["trusted", "members"] | None = "trusted",  # noqa: S107 - no password
            allowed_hosts: str | Iterable[str] = (),
            port: int | str | None = None,
            address_map: str | Mapping[str, str] | Iterable[tuple[Address, Address]] = (),
            fallback_hosts: str | Iterable[str | Address] = (),
            etcd: str | Iterable[str] = (),
            namespace: str | None = _NAMESPACE,
            etcd_user: str | None = None,
            etcd_password: str | None = None,
            etcd_ca: str | os.PathLike[str] | None = None,
            etcd_cert: str | os.PathLike[str] | None = None,
            etcd_key: str | os.PathLike[str] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Parse and check every setting, then check those that must agree."""
        for field in dataclasses.fields(self):
            setting = PREFIX + field.name
            try:
                value = _PARSERS[field.name](getattr(self, field.name))
            except (ValueError, TypeError) as exc:
                raise ConfigError(setting, str(exc)) from None
            object.__setattr__(self, field.name, value)
        self._check_agreement()

    def _check_agreement(self) -> None:
        if not self.urls:
            raise ConfigError("patroni_urls", f"is required (or set {ENV_API_URL})")
        if self.target is Target.PRIMARY:
            if self.max_lag is not None:
                raise ConfigError("patroni_max_lag", "makes no sense with patroni_target=primary: a primary has no lag")
            if self.tags:
                raise ConfigError("patroni_tags", "makes no sense with patroni_target=primary: there is only one")
        if self.key is not None and self.cert is None:
            raise ConfigError("patroni_key", "needs patroni_cert")
        if self.password is not None and self.user is None:
            raise ConfigError("patroni_password", "needs patroni_user")
        if self.password_for != _TRUSTED and self.user is None:
            raise ConfigError("patroni_password_for", "needs patroni_user")
        if any(url.startswith("http:") for url in self.urls) and (self.ca or self.cert):
            raise ConfigError("patroni_ca" if self.ca else "patroni_cert", "needs https:// in every patroni_urls")
        self._check_agreement_on_etcd()

    def _check_agreement_on_etcd(self) -> None:
        if not self.etcd:
            names = ("etcd_user", "etcd_password", "etcd_ca", "etcd_cert", "etcd_key")
            given = [name for name in names if getattr(self, name) is not None]
            if self.namespace != _NAMESPACE:
                given.append("namespace")
            if given:
                raise ConfigError(PREFIX + given[0], "needs patroni_etcd")
        if self.etcd_key is not None and self.etcd_cert is None:
            raise ConfigError("patroni_etcd_key", "needs patroni_etcd_cert")
        if (self.etcd_user is None) != (self.etcd_password is None):
            lone, other = ("user", "password") if self.etcd_user else ("password", "user")
            raise ConfigError(f"patroni_etcd_{lone}", f"needs patroni_etcd_{other}")
        if any(url.startswith("http:") for url in self.etcd) and (self.etcd_ca or self.etcd_cert):
            setting = "patroni_etcd_ca" if self.etcd_ca else "patroni_etcd_cert"
            raise ConfigError(setting, "needs https:// in every patroni_etcd")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Return the config that the ``patroni_*`` keys of `options` describe; other keys are ignored.

        :raises ConfigError: for an unknown ``patroni_*`` name or a bad value
        """
        settings = {}
        for name, value in options.items():
            if not is_setting(name):
                continue
            bare = name.removeprefix(PREFIX)
            if bare == name or bare not in _PARSERS:
                raise ConfigError(name, _unknown(name))
            settings[bare] = value
        return cls(**settings)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with `changes`, checked again."""
        return dataclasses.replace(self, **changes)

    @property
    def discovery_key(self) -> tuple[object, ...]:
        """What two configs must have in common to share one discovery: all but the uses they make of it."""
        return (
            tuple(sorted(self.urls)),
            tuple(sorted(self.etcd)),
            *(getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in _OF_ONE_USE),
        )


_OF_ONE_USE: Final = frozenset(
    {"urls", "etcd", "target", "max_lag", "tags", "failover_timeout", "causal_wait", "fallback_hosts"}
)


def is_setting(name: str) -> bool:
    """Return whether a parameter called `name` is for us and not for the driver, also when it is misspelled."""
    return name.lower().startswith("patroni")


def _unknown(name: str) -> str:
    spelled = re.sub("^patroni_?", "", name.lower().replace("-", "_"))
    close = difflib.get_close_matches(spelled, _PARSERS, n=1)
    if close:
        return f"is not a setting: did you mean {PREFIX}{close[0]}?"
    return f"is not a setting. There are {', '.join(PREFIX + known for known in _PARSERS)}"


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split `options` into the ``patroni_*`` settings and the driver's own, both as new dicts."""
    ours = {name: value for name, value in options.items() if is_setting(name)}
    return ours, {name: value for name, value in options.items() if name not in ours}


def _urls(value: object) -> tuple[str, ...]:
    items = _items(value)
    if not items:
        items = _items(os.environ.get(ENV_API_URL, ""))
    return tuple(dict.fromkeys(map(_url, items)))


def _url(text: str, example: str = "http://10.0.0.1:8008", of: str = "patroni") -> str:
    if "@" in text:
        raise ValueError(f"credentials do not belong in a URL: use {of}_user and {of}_password")
    try:
        url = ApiUrl.parse(text)
    except ValueError as exc:
        detail = f": {exc}" if str(exc) else ""
        raise ValueError(f"{quoted(text)} is not a URL such as {example}{detail}") from None
    path = url.path
    for suffix in ("/patroni", "/cluster"):  # as members advertise themselves, or as copied from a browser
        path = path.removesuffix(suffix)
    return str(dataclasses.replace(url, path=path))


def _etcd(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_etcd_url, _items(value))))


def _etcd_url(text: str) -> str:
    url = ApiUrl.parse(_url(text, f"http://10.0.0.1:{_ETCD_PORT}", "patroni_etcd"))
    return str(dataclasses.replace(url, port=url.port or _ETCD_PORT))


def _namespace(value: object) -> str:
    """Return the namespace as Patroni writes it into keys: one slash before each part, none at the end."""
    text = _optional_text(value)
    return _NAMESPACE if text is None else "/" + "/".join(filter(None, text.strip().split("/")))


def _target(value: object) -> Target:
    try:
        return Target(str(value))
    except ValueError:
        known = ", ".join(Target)
        raise ValueError(f"{quoted(value)} is not one of {known}") from None


def _size(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{quoted(value)} is not a size such as 16MB (units: {', '.join(_SIZE_UNITS)})")
        size = int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    if size < 0:
        raise ValueError(f"{quoted(value)} is negative")
    if size > MAX_LSN:
        raise ValueError(f"{quoted(value)} is more than PostgreSQL can count to")
    return size


def _cadence(value: object) -> float:
    return parsed(value, least=_LEAST_REFRESH)


def _timeout(value: object) -> float:
    """Parse a duration that may also be zero: do not wait."""
    return parsed(value, least=0)


def _tags(value: object) -> tuple[Mapping[str, str], ...]:
    if isinstance(value, str):
        return tuple(_tag_set(text) for text in value.split(";")) if value.strip() else ()
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{quoted(value)} is neither text such as zone=a;zone=b; nor a list of mappings")
    sets = []
    for item in value:
        if not hasattr(item, "items"):
            raise TypeError(f"{quoted(item)} is not a mapping of tags")
        sets.append(_FrozenTags({str(k): str(v) for k, v in item.items()}))
    return tuple(sets)


def _tag_set(text: str) -> Mapping[str, str]:
    pairs = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, wanted = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{quoted(pair)} is not a tag such as zone=a")
        pairs[name.strip()] = wanted.strip()
    return _FrozenTags(pairs)


class _FrozenTags(dict[str, str]):
    """A dict that promises not to change, so that a config stays hashable and can be copied."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]  # dict sets it to None
        return hash(frozenset(self.items()))


def _optional_text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value or None


def _path(value: object) -> str | None:
    if value is None or value == "":
        return None
    path = os.fspath(value)  # type: ignore[call-overload]  # anything else raises the TypeError we report
    if not os.path.exists(path):  # noqa: PTH110 - fspath may be any path-like
        shown = quoted(str(path)).strip("'")
        raise ValueError(f"no such file: {shown}")
    return str(path)


def _password_for(value: object) -> str:
    text = _optional_text(value) or _TRUSTED
    if text not in {_TRUSTED, _MEMBERS}:
        raise ValueError(f"{quoted(value)} is not one of {_TRUSTED}, {_MEMBERS}")
    return text


def _hosts(value: object) -> tuple[str, ...]:
    return tuple(map(_host_pattern, _items(value)))


def _host_pattern(text: str) -> str:
    try:
        return parse_host_pattern(text)
    except ValueError as exc:
        raise ValueError(f"{quoted(text)} is {exc}") from None


def _port(value: object) -> int | None:
    if value is None or value == "":
        return None
    text = str(value).strip() if isinstance(value, (int, str)) else ""  # a bool's is no number
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 0 < port <= _MAX_PORT:
        raise ValueError(f"{quoted(value)} is not a port")
    return port


def _address_map(value: object) -> tuple[tuple[Address, Address], ...]:
    if hasattr(value, "items"):
        pairs: list[Any] = list(value.items())
    elif isinstance(value, str):
        pairs = [item.partition("=")[::2] for item in _items(value)]
    else:
        pairs = list(value)  # type: ignore[call-overload]  # anything else raises the TypeError we report
    return tuple((_address(advertised), _address(reachable)) for advertised, reachable in pairs)


def _addresses(value: object) -> tuple[Address, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(map(_address, value))
    return tuple(map(_address, _items(value)))


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    host, colon, port = str(value).strip().rpartition(":")
    try:
        return Address.parse(host, (_port(port) if colon else None) or 0)
    except ValueError:
        raise ValueError(f"{quoted(value)} is not host:port") from None


def _items(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(filter(None, (item.strip() for item in value.split(","))))
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"expected a list or comma-separated text, got {type(value).__name__}")
    for item in value:
        if not isinstance(item, str):
            raise TypeError(f"expected text, got {quoted(item)}")
    return tuple(item.strip() for item in value if item.strip())


_PARSERS: Final[Mapping[str, Any]] = {
    "urls": _urls,
    "target": _target,
    "scope": _optional_text,
    "max_lag": _size,
    "tags": _tags,
    "failover_timeout": _timeout,
    "causal_wait": _timeout,
    "refresh": _cadence,
    "timeout": parsed,
    "ca": _path,
    "cert": _path,
    "key": _path,
    "user": _optional_text,
    "password": _optional_text,
    "password_for": _password_for,
    "allowed_hosts": _hosts,
    "port": _port,
    "address_map": _address_map,
    "fallback_hosts": _addresses,
    "etcd": _etcd,
    "namespace": _namespace,
    "etcd_user": _optional_text,
    "etcd_password": _optional_text,
    "etcd_ca": _path,
    "etcd_cert": _path,
    "etcd_key": _path,
}
