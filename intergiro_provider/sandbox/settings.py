# SPDX-License-Identifier: Apache-2.0
"""The settings of the sandbox: a dataclass, from which the flags and the run-time settings are derived."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args, get_origin, get_type_hints

DEFAULT_API_KEY = "5a4db0c5-0000-4000-8000-5a4db0c5a4db"
ROLES = ("transactions", "accounts", "payments")


class SettingsError(ValueError):
    """A setting that does not exist, or a value that is not allowed. The message names the setting."""


def _set(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """All settings. The defaults match what the bank documents.

    Seconds are floats. A setting marked (?) is not documented by the bank: a client must work with every value of it.
    """

    # Keys and logins
    api_keys: tuple[str, ...] = _set(
        (DEFAULT_API_KEY,), "API key with all roles, or KEY:role+role with some of transactions, accounts, payments"
    )
    login_limit: int = _set(
        10,
        "logins of a key within the window; one more blocks the key (403) until the sandbox is reset (?)",
        low=1,
    )
    login_window: float = _set(3600.0, "length of this rolling window in seconds (?)", low=0)
    frozen: bool = _set(False, "2d API keys are frozen: logins at /v1 are refused")

    # The life of a session
    access_token_life: float = _set(900.0, "seconds until an access token expires", low=0)
    session_life: float = _set(3600.0, "seconds from the login until the session ends", low=0)
    access_token_format: Literal["jwt", "jwt_without_exp", "opaque"] = _set("jwt", "format of access tokens (?)")
    old_refresh_token: Literal["refused", "works", "revokes"] = _set(
        "refused", "a used refresh token is refused, still works, or revokes its session (?)"
    )

    # Lists
    created_from_inclusive: bool = _set(True, "created_from is inclusive (?)")
    created_to_inclusive: bool = _set(True, "created_to is inclusive (?)")

    # Access
    always_401: tuple[str, ...] = _set(
        (), "path prefix that responds with 401 to a valid token, as for a missing permission"
    )

    # Payments
    idempotency: Literal["keep", "ignore", "conflict", "replay"] = _set(
        "keep",
        "a repeated request_id gets the first response, or 409 if the body differs (keep); pays again (ignore); "
        "gets 409 (conflict); gets the first response for any body (replay) (?)",
    )
    idempotency_life: float = _set(0.0, "seconds for which a request_id is remembered; 0: always (?)", low=0)
    correlation_delay: float = _set(0.0, "seconds until correlation_ids finds the items of a batch (?)", low=0)
    correlation_ids_ignored: bool = _set(False, "the filter correlation_ids is ignored (?)")
    max_waiting_batches: int = _set(100, "batches that can wait for approval at the same time", low=0)
    pay_consent_above: int = _set(
        0, "payments above this amount (minor units) need the user's consent (412); 0: none", low=0
    )
    consent_life: float = _set(600.0, "seconds until a consent expires (?)", low=0)
    consent_repeat: Literal["kept", "replaced"] = _set(
        "kept", "a repeated request names the same consent, or a new one that replaces it (?)"
    )
    consent_executes: bool = _set(False, "the consent makes the payment; otherwise the client repeats the request (?)")
    consent_readable: bool = _set(False, "a GET of a consent shows its status; otherwise 405 (?)")

    # The wire
    latency: float = _set(0.0, "seconds added to each response", low=0)
    requests_per_second: float = _set(0.0, "requests above this rate get 429; 0: no limit", low=0)
    request_burst: float = _set(0.0, "requests that may exceed this rate at once; 0: those of one second", low=0)
    max_concurrency: int = _set(0, "requests above this number at the same time get 429; 0: no limit", low=0)
    retry_after: float = _set(1.0, "seconds in the Retry-After of these 429 responses", low=0)
    retry_after_form: Literal["seconds", "date", "none"] = _set("seconds", "format of Retry-After (?)")
    date_skew: float = _set(0.0, "seconds by which the Date header is ahead")

    # Data
    seed: int = _set(1, "seed of the data", low=0)
    transactions: int = _set(2000, "number of transactions in each API", low=0, high=5_000_000)
    days: float = _set(30.0, "days over which the transactions are spread, up to now", low=0.001)
    now: str = _set("", "time of the newest data, ISO 8601 with an offset; empty: the start of the sandbox")
    settle_after: float = _set(0.0, "seconds until a pending transaction completes; 0: only by /_sandbox/settle", low=0)
    cached_records: int = _set(200_000, "serialized records kept in memory, about 700 bytes each", low=0)
    prepare: bool = _set(False, "serialize 3d transactions at the start, up to cached_records: for benchmarks")
    kept_requests: int = _set(1000, "number of requests kept for /_sandbox/requests", low=0)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            _check(each, getattr(self, each.name))
        if not self.api_keys:
            raise SettingsError("api_keys: at least one key is needed")
        for spec in self.api_keys:
            parse_key(spec)
        parse_now(self.now)

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """Return a copy with these settings changed. Numbers may be int or float, tuples may be lists.

        :raises SettingsError: an unknown setting, or a value that is not allowed.
        """
        known = {each.name for each in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise SettingsError(f"{name}: no such setting; there are {', '.join(sorted(known))}")
        return dataclasses.replace(self, **{name: _coerce(name, value) for name, value in changes.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return dataclasses.asdict(self)


DATA_SETTINGS = frozenset({"seed", "transactions", "days", "now", "settle_after"})
"""Settings that, when changed, generate the data again."""

_TYPES = get_type_hints(Settings)


def parse_key(spec: str) -> tuple[str, frozenset[str]]:
    """Split an entry of `api_keys` into key and roles."""
    key, colon, roles = spec.partition(":")
    names = frozenset(roles.split("+")) if colon else frozenset(ROLES)
    if not key.strip() or key != key.strip():
        raise SettingsError("api_keys: a key must not be empty or have spaces around it")
    if unknown := names - set(ROLES) - {""}:
        raise SettingsError(f"api_keys: unknown role {', '.join(sorted(unknown))}; there are {', '.join(ROLES)}")
    return key, names - {""}


def parse_now(text: str) -> datetime:
    """Return the setting `now` as an aware datetime; an empty one means the current second."""
    if not text:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"now: {text!r} is not an ISO 8601 date-time") from None
    if len(text) == len("2025-01-31"):
        moment = moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise SettingsError(f"now: {text!r} has no offset; add one, for example Z")
    return moment.astimezone(UTC)


def _coerce(name: str, value: Any) -> Any:
    kind = _TYPES[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if get_origin(kind) is tuple and isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(value)
    return value


def _check(setting: dataclasses.Field[Any], value: Any) -> None:
    name, kind = setting.name, _TYPES[setting.name]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SettingsError(f"{name}: {value!r} is not one of {', '.join(get_args(kind))}")
        return
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{name}: {value!r} is not a list of strings")
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SettingsError(f"{name}: {value!r} is not of type {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{name}: {value!r} is not a finite number")
    low, high = setting.metadata["low"], setting.metadata["high"]
    if low is not None and value < low:
        raise SettingsError(f"{name}: {value!r} is below {low}")
    if high is not None and value > high:
        raise SettingsError(f"{name}: {value!r} is above {high}")


def add_flags(parser: argparse._ArgumentGroup) -> None:
    """Add one flag for each setting: `access_token_life` is `--access-token-life`."""
    for each in dataclasses.fields(Settings):
        kind = _TYPES[each.name]
        flag = "--" + each.name.replace("_", "-")
        text = each.metadata["help"].replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif get_origin(kind) is tuple:
            singular = "--api-key" if each.name == "api_keys" else flag
            text += "; may be given more than once"
            parser.add_argument(singular, dest=each.name, action="append", default=None, help=text, metavar="X")
        elif get_origin(kind) is Literal:
            text += f" (default: {each.default})"
            parser.add_argument(flag, choices=get_args(kind), default=None, help=text)
        else:
            text += f" (default: {each.default!r})"
            parser.add_argument(flag, type=kind, default=None, help=text, metavar=kind.__name__.upper())


def from_flags(arguments: argparse.Namespace, base: Mapping[str, Any]) -> Settings:
    """Return the settings of parsed flags, on top of `base`.

    :raises SettingsError: a value that is not allowed.
    """
    given = {each.name: getattr(arguments, each.name) for each in dataclasses.fields(Settings)}
    return Settings().changed({**base, **{name: value for name, value in given.items() if value is not None}})
