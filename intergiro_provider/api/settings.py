# SPDX-License-Identifier: Apache-2.0
"""The settings of a connection, checked before anything is sent."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.session.documents import fingerprint

HOSTS = {
    ("3d", "live"): "https://3d.intergiro.com",
    ("3d", "staging"): "https://3d.staging.intergiro.tech",
    ("2d", "live"): "https://2d.intergiro.com",
    ("2d", "staging"): "https://2d.staging.intergiro.tech",
}
VERSIONS = {"3d": "v3", "2d": "v1"}
PROBES = {"3d": ("individuals", "accounts"), "2d": ("transactions", "accounts")}
"""List endpoints to test an access token; the second one is used if the first refused the token."""

KNOWN_EXTRAS = frozenset(
    {
        "api",
        "environment",
        "lock_conn_id",
        "max_logins_per_hour",
        "connect_timeout",
        "read_timeout",
        "proxies",
        "verify",
        "headers",
    }
)
RESERVED_HEADERS = frozenset({"authorization", "cookie", "host", "content-length", "transfer-encoding", "user-agent"})

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VERSION_SEGMENT = re.compile(r"[vV][0-9]+")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the API is and how to talk to it.

    :param origin: scheme, host and port, such as ``https://3d.intergiro.com``.
    :param api: ``3d`` (banking as a service) or ``2d`` (business banking).
    :param environment: ``live`` or ``staging``.
    :param api_key: the API key for logins.
    :param connect_timeout: seconds to establish a connection.
    :param read_timeout: seconds to wait for the next bytes of a response.
    :param max_logins_per_hour: logins allowed in a rolling hour, for all tasks of one session together.
    :param lock_conn_id: connection to the service of the distributed lock; None: no lock.
    :param verify: as in ``requests``: whether to check certificates, or the path of a CA bundle.
    :param proxies: as in ``requests``: scheme to proxy URL.
    :param headers: extra headers of every request.
    :param unknown_extras: names in the connection's extra that are not settings.
    :param orchestrator: the orchestrator that runs the provider, for `User-Agent`.
    """

    origin: str
    api: str
    environment: str
    api_key: str = field(repr=False)
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    max_logins_per_hour: int = 3
    lock_conn_id: str | None = None
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    unknown_extras: tuple[str, ...] = ()
    orchestrator: str = "Apache Airflow"

    @property
    def key(self) -> str:
        """Fingerprint of origin and API key, which identifies their session."""
        return fingerprint(self.origin, self.api_key)

    @property
    def version(self) -> str:
        """The version segment that this API's paths begin with."""
        return VERSIONS[self.api]

    @property
    def user_agent(self) -> str:
        """The `User-Agent`: the provider, its version and the orchestrator."""
        agent = requests.utils.default_user_agent()
        return f"airflow-provider-intergiro/{__version__} ({self.orchestrator}; {agent})"

    @property
    def timeout(self) -> tuple[float, float]:
        """Connect and read timeout, as ``requests`` takes them."""
        return self.connect_timeout, self.read_timeout

    def url(self, endpoint: str | None) -> str:
        """Return the full URL of an endpoint.

        :param endpoint: ``transactions``, ``/v3/transactions`` or a full URL on this origin.
        :raises IntergiroValueError: the URL has another origin.
        """
        if not isinstance(endpoint or "", str):
            raise IntergiroValueError(
                f"The endpoint is a {type(endpoint).__name__}. Give a path such as 'transactions'."
            )
        endpoint = (endpoint or "").strip()
        if not endpoint.replace(" ", "").isprintable():
            raise IntergiroValueError("The endpoint holds a control character. Give a path such as 'transactions'.")
        if "://" in endpoint.split("?", 1)[0] or endpoint.startswith("//"):
            origin = origin_of(endpoint)
            if not origin and not endpoint.startswith("//"):
                raise IntergiroValueError("The endpoint is not a valid URL. Give a path such as 'transactions'.")
            if origin != self.origin:
                raise IntergiroValueError(
                    f"The endpoint is a URL on another host than the connection's {self.origin}. Give a path such as "
                    "'transactions', or use a connection for that host."
                )
            parts = urlsplit(endpoint)
            endpoint = parts.path + (f"?{parts.query}" if parts.query else "")
        path = endpoint.lstrip("/")
        first = re.split(r"[/?#]", path, maxsplit=1)[0]
        if ".." in unquote(re.split(r"[?#]", path, maxsplit=1)[0]).split("/"):
            raise IntergiroValueError("The endpoint holds a '..' segment. Give the path without it.")
        if not _VERSION_SEGMENT.fullmatch(first):
            return f"{self.origin}/{self.version}/{path}"
        return f"{self.origin}/{first.lower()}{path[len(first) :]}"

    def probe_url(self, refused_path: str) -> str:
        """Return the URL of a list endpoint other than the refused one, to test the access token."""
        for name in PROBES[self.api]:
            url = self.url(name)
            if urlsplit(url).path != refused_path:
                return url
        raise AssertionError("two probes cannot both be the refused path")


def read_settings(
    *,
    host: str | None,
    port: int | None,
    schema: str | None,
    password: str | None,
    extra: Mapping[str, Any],
    conn_id: str,
) -> ApiSettings:
    """Return the settings from the fields of an Airflow connection.

    :raises IntergiroValueError: names the field and the remedy.
    """
    given = {name: value for name, value in extra.items() if value is not None}
    for name in sorted(set(given) - KNOWN_EXTRAS):
        # A mistyped `environment` would mean live.
        if meant := _meant_by(name):
            raise IntergiroValueError(
                f"The extra of connection {conn_id!r} contains `{name}`, which is not a setting. If you mean "
                f"`{meant}`, rename it. Otherwise, remove it."
            )
    read = _Reader(given, conn_id)
    api = read.choice("api", ("3d", "2d"), default="3d")
    environment = read.choice("environment", ("live", "staging"), default="live")
    api_key = (password or "").strip()
    if not api_key:
        raise IntergiroValueError(f"The connection {conn_id!r} has no API key. Put it into the connection's password.")
    if not (api_key.isascii() and api_key.isprintable()):
        raise IntergiroValueError(
            f"The API key in the password of connection {conn_id!r} contains characters that are not "
            "printable ASCII. Copy it again."
        )
    return ApiSettings(
        origin=_origin(host, port, schema, conn_id) or HOSTS[api, environment],
        api=api,
        environment=environment,
        api_key=api_key,
        connect_timeout=read.seconds("connect_timeout", 5.0),
        read_timeout=read.seconds("read_timeout", 60.0),
        max_logins_per_hour=read.count("max_logins_per_hour", 3),
        lock_conn_id=read.text("lock_conn_id"),
        verify=read.verify(),
        proxies=read.proxies(),
        headers=read.headers(),
        unknown_extras=tuple(sorted(set(given) - KNOWN_EXTRAS)),
    )


def _meant_by(name: str) -> str | None:
    """Return the setting that a misspelt name resembles; None if there is none."""
    plain = re.sub(r"^extra__[a-z0-9]+__", "", name.strip().lower()).replace("-", "_")
    if plain in {"live", "production", "sandbox", "staging"}:
        return "environment"
    if close := difflib.get_close_matches(plain, KNOWN_EXTRAS, n=1, cutoff=0.8):
        return close[0]
    return next((known for known in sorted(KNOWN_EXTRAS) if len(plain) > 2 and known.startswith(plain)), None)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, normalized: lower case, ASCII, no default port; empty if it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = urlsplit(requests.Request("GET", f"https://{host}/").prepare().url or "").hostname or ""
    except ValueError:  # requests' InvalidURL is one
        return ""
    if not host or parts.scheme.lower() not in ("http", "https"):
        return ""
    name = f"[{host}]" if ":" in host else host
    default = 443 if parts.scheme.lower() == "https" else 80
    return f"{parts.scheme.lower()}://{name}" + ("" if port in (None, default) else f":{port}")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address always means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(host: str | None, port: int | None, schema: str | None, conn_id: str) -> str:
    """Return the origin in the connection's fields; empty if there is none."""
    host = (host or "").strip()
    where = f"connection {conn_id!r}"
    if not host:
        if port:
            raise IntergiroValueError(f"The {where} has a port but no host. Fill in the host, or clear the port.")
        return ""
    if "://" not in host:
        bare = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
        host = f"{(schema or 'https').strip().lower()}://{bare}"
    try:
        parts = urlsplit(host)
        own_port = parts.port
    except ValueError:
        raise IntergiroValueError(f"The host of {where} is not a valid URL: its port or address is wrong.") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise IntergiroValueError(
            f"The host of {where} is not an http or https URL. Give a host name, or a URL such "
            "as https://3d.intergiro.com."
        )
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise IntergiroValueError(
            f"The host of {where} may hold scheme, host and port, and nothing else: no user, path or query. The API "
            "key belongs into the password; the version is put before every endpoint."
        )
    if own_port and port:
        raise IntergiroValueError(f"The {where} has a port in its host and one in its port field. Keep one of them.")
    if parts.scheme.lower() == "http" and not is_loopback(parts.hostname):
        raise IntergiroValueError(
            f"The {where} uses plain http to a remote host, which would send the API key unencrypted. Use https (the "
            "host as https://…, or `schema` https)."
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = origin_of(
        f"{parts.scheme}://{name}:{own_port or port}" if own_port or port else f"{parts.scheme}://{name}"
    )
    if not origin:
        raise IntergiroValueError(f"The host of {where} is not a valid host name: {parts.hostname!r}.")
    return origin


class _Reader:
    """Typed access to a connection's extra. The connection form and a connection URI store all values as text."""

    def __init__(self, extra: Mapping[str, Any], conn_id: str) -> None:
        self._extra = extra
        self._where = f"in the extra of connection {conn_id!r}"

    def text(self, name: str) -> str | None:
        value = self._extra.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise IntergiroValueError(f"`{name}` {self._where} must be a string.")
        return value.strip() or None

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        if value not in choices:
            raise IntergiroValueError(f"`{name}` {self._where} is {value!r}; it must be {' or '.join(choices)}.")
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self._number(name, default)
        if not 0 < value <= 3600:
            raise IntergiroValueError(f"`{name}` {self._where} must be seconds, above 0 and at most 3600.")
        return value

    def count(self, name: str, default: int) -> int:
        value = self._number(name, default)
        if value != int(value) or not 1 <= value <= 1000:
            raise IntergiroValueError(f"`{name}` {self._where} must be a whole number from 1 to 1000.")
        return int(value)

    def _number(self, name: str, default: float) -> float:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        try:
            if isinstance(value, bool):
                raise TypeError
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number
        except (TypeError, ValueError):
            raise IntergiroValueError(f"`{name}` {self._where} must be a number.") from None

    def verify(self) -> bool | str:
        value = self._extra.get("verify")
        if value is None or value == "":
            return True
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.strip().lower(), value)
        raise IntergiroValueError(f"`verify` {self._where} must be true, false or the path of a CA bundle.")

    def proxies(self) -> dict[str, str]:
        value = self._extra.get("proxies")
        if isinstance(value, str) and "://" in value and not value.lstrip().startswith("{"):
            return {"http": value.strip(), "https": value.strip()}
        return self._strings("proxies", "scheme to proxy URL")

    def headers(self) -> dict[str, str]:
        headers = self._strings("headers", "name to value")
        for name, value in headers.items():
            if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
                raise IntergiroValueError(
                    f"`headers` {self._where} holds a name or a value HTTP does not allow: ASCII only, on one line."
                )
            if name.lower() in RESERVED_HEADERS:
                raise IntergiroValueError(
                    f"`headers` {self._where} names {name}, which the provider itself sets. Remove it there."
                )
        return headers

    def _strings(self, name: str, meaning: str) -> dict[str, str]:
        value = self._extra.get(name)
        if value is None or value == "":
            return {}
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise IntergiroValueError(f"`{name}` {self._where} must be a JSON object of strings, {meaning}.")
        return {str(k): v for k, v in value.items()}
