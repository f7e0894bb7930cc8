# SPDX-License-Identifier: Apache-2.0
"""The hook: from an Airflow connection to authenticated requests."""

from __future__ import annotations

import functools
import json
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from airflow.providers.common.compat.sdk import AirflowException, conf
from airflow.providers.http.hooks.http import HttpHook
from requests_toolbelt.adapters.socket_options import TCPKeepAliveAdapter

from intergiro_provider.api.auth_client import AuthClient
from intergiro_provider.api.client import CONNECTIONS, IntergiroClient
from intergiro_provider.api.http import ApiSession
from intergiro_provider.api.settings import HOSTS, ApiSettings, read_settings
from intergiro_provider.api.transport import SkipInterimAdapter
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StoreUnavailable
from intergiro_provider.hooks.metrics import AirflowMetrics
from intergiro_provider.query import warn_of_unknown_filters, whole_query
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.documents import session_name
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import Outcome, Renewer
from intergiro_provider.session.locks import open_lock
from intergiro_provider.session.store import VariableStore, uses_execution_api
from intergiro_provider.session.timings import Timings

T = TypeVar("T")

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection
    from requests.adapters import HTTPAdapter

_hooks: weakref.WeakSet[IntergiroHook] = weakref.WeakSet()


def _new_locks_after_fork() -> None:
    for hook in _hooks:
        hook._lock = threading.Lock()


os.register_at_fork(after_in_child=_new_locks_after_fork)


class _KeepAliveAdapter(SkipInterimAdapter, TCPKeepAliveAdapter):  # type: ignore[misc]
    pass


class IntergiroHook(HttpHook):
    """Call the Intergiro API with a session that renews itself and is shared by every task.

    :param intergiro_conn_id: connection of type ``intergiro``, whose password is the API key.
    :param method: HTTP method of :meth:`run`.
    :param auth_type: accepted because the stock HttpOperator passes it; an Intergiro connection has its own.
    :param tcp_keep_alive: whether to use TCP keep-alive.
    :param tcp_keep_alive_idle: seconds of silence before the first keep-alive probe.
    :param tcp_keep_alive_count: unanswered probes after which a connection counts as dead.
    :param tcp_keep_alive_interval: seconds between probes.
    :param adapter: transport to use instead of the default one.

    The hook reads the connection once. Tokens are stored in an Airflow Variable that all tasks share, and cached per
    process. ``docs/explanation/session.md`` explains what happens when they expire.
    """

    conn_name_attr = "intergiro_conn_id"
    default_conn_name = "intergiro_default"
    conn_type = "intergiro"
    hook_name = "Intergiro"

    def __init__(
        self,
        intergiro_conn_id: str = default_conn_name,
        method: str = "GET",
        auth_type: Any = None,
        tcp_keep_alive: bool = True,
        tcp_keep_alive_idle: int = 120,
        tcp_keep_alive_count: int = 20,
        tcp_keep_alive_interval: int = 30,
        adapter: HTTPAdapter | None = None,
    ) -> None:
        super().__init__(
            method=method,
            http_conn_id=intergiro_conn_id,
            auth_type=auth_type,
            tcp_keep_alive=False,
            adapter=adapter,
        )
        self.intergiro_conn_id = intergiro_conn_id
        self._keep_alive = {
            "idle": tcp_keep_alive_idle,
            "count": tcp_keep_alive_count,
            "interval": tcp_keep_alive_interval,
        }
        self._tcp_keep_alive = tcp_keep_alive
        self._begin()
        if auth_type is not None:
            self.log.warning("auth_type has no effect: an Intergiro connection logs in with its API key.")

    def _begin(self) -> None:
        self._lock = threading.Lock()
        _hooks.add(self)
        self._settings: ApiSettings | None = None
        self._client: IntergiroClient | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the hook's arguments, for copies and pickles. A copy reads the API key from the connection."""
        own = ("_lock", "_settings", "_client", "_log")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start as a new hook with the same arguments."""
        self.__dict__.update(state)
        self._begin()

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return the connection, also where Airflow 3 reads only the environment (command line, API server, Python)."""
        if not uses_execution_api():
            from airflow.models.connection import Connection as DatabaseConnection

            found: Connection = DatabaseConnection.get_connection_from_secrets(conn_id)
            return found
        connection: Connection = super().get_connection(conn_id)
        return connection

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection form on Airflow 2.11 to 3.1. Later versions read the provider info."""
        from intergiro_provider.hooks.form import connection_form_widgets

        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and hidden fields of the connection form on Airflow 2.11 to 3.1."""
        from intergiro_provider.get_provider_info import get_provider_info

        behaviour = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @property
    def settings(self) -> ApiSettings:
        """The connection's settings, read when they are first used."""
        with self._lock:
            if self._settings is None:
                self._settings = self._read_settings()
                if self._settings.unknown_extras:
                    self.log.warning(
                        "The extra of connection %r holds names that are not settings: %s.",
                        self.intergiro_conn_id,
                        ", ".join(self._settings.unknown_extras),
                    )
            return self._settings

    def _read_settings(self) -> ApiSettings:
        connection = self.get_connection(self.intergiro_conn_id)
        # Not `extra_dejson`: Airflow 2 reads a broken extra as an empty one, which would mean live.
        try:
            extra = json.loads((connection.extra or "").strip() or "{}")
        except ValueError:
            extra = None
        if not isinstance(extra, dict):
            raise IntergiroValueError(f"The extra of connection {self.intergiro_conn_id!r} must be a JSON object.")
        return read_settings(
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            password=connection.password,
            extra=extra,
            conn_id=self.intergiro_conn_id,
        )

    @property
    def client(self) -> IntergiroClient:
        """The client that sends the requests of this hook."""
        settings = self.settings
        with self._lock:
            if self._client is None or self._client.pid != os.getpid():
                # A connection must not be shared with the parent of a fork.
                self._client = IntergiroClient(
                    settings, self.shared_session(settings), self.adapter or self._default_adapter()
                )
            return self._client

    def get_conn(
        self, headers: dict[Any, Any] | None = None, extra_options: dict[str, Any] | None = None
    ) -> ApiSession:
        """Return a pooled session whose every request is authenticated and survives the expiry of the access token.

        Its methods take endpoints as well as URLs: ``hook.get_conn().get("transactions", params={"limit": 5})``.

        Nothing is sent to the bank before the first request. The session returns error statuses and retries nothing;
        :meth:`run` raises and retries. Both raise :class:`.OutcomeUnknown` for a write whose outcome is unknown.

        :param headers: headers to add. With them, the method returns a new session.
        :param extra_options: as in :meth:`run`. With them, the method returns a new session.
        """
        client = self.client
        if not headers and not extra_options:
            return client.session
        own = client.new_session()
        own.headers.update(headers or {})
        for name in ("stream", "verify", "cert", "proxies", "max_redirects", "trust_env", "timeout"):
            if (value := (extra_options or {}).get(name)) is not None:
                setattr(own, name, value)
        return own

    def _default_adapter(self) -> HTTPAdapter | None:
        if not self._tcp_keep_alive:
            return None
        keep_alive: Any = self._keep_alive
        return _KeepAliveAdapter(**keep_alive, pool_maxsize=CONNECTIONS)

    def shared_session(self, settings: ApiSettings) -> SharedSession:
        """Return the session that all tasks with this origin and API key share."""
        timings = _timings()
        me = Renewer(
            key=settings.key,
            name=f"{socket.gethostname()}:{os.getpid()}",
            connection=self.intergiro_conn_id,
            max_logins=settings.max_logins_per_hour,
        )
        store = VariableStore(Codec(settings.origin, settings.api_key))
        return SharedSession(
            store,
            AuthClient(settings, timings.call, self._read_settings),
            me,
            timings,
            self._distributed_lock(settings, store.name),
            AirflowMetrics(store.name),
            reopen=functools.partial(self._reopen, settings.origin),
        )

    def _reopen(self, origin: str) -> SharedSession:
        """Return the session of the API key that the connection holds now.

        :raises StoreUnavailable: if it leads to another origin now, where this hook's requests do not go.
        """
        settings = self._read_settings()
        if settings.origin != origin:
            raise StoreUnavailable(
                f"The connection {self.intergiro_conn_id!r} leads to another host now. No login was made; the task can "
                "be retried."
            )
        return self.shared_session(settings)

    def _distributed_lock(self, settings: ApiSettings, name: str) -> Callable[[], DistributedLock] | None:
        """Return what creates the lock that each renewal acquires; None if the connection names no lock."""
        if settings.lock_conn_id is None:
            return None
        return functools.partial(open_lock, settings.lock_conn_id, name, self.get_connection)

    def run(
        self,
        endpoint: str | None = None,
        data: Any = None,
        headers: dict[str, Any] | None = None,
        extra_options: dict[str, Any] | None = None,
        **request_kwargs: Any,
    ) -> requests.Response:
        """Send one request and return the response.

        :param endpoint: ``transactions``, ``/v3/transactions`` or a full URL on the connection's own origin.
        :param data: for GET the query, a dict; otherwise the body: a dict or list is sent as JSON, str and bytes as
            they are.
        :param headers: further headers of this request.
        :param extra_options: ``check_response: False`` returns error statuses instead of raising; ``retry: False``
            sends the request once, for callers with their own retries. Also ``timeout``, ``stream``,
            ``verify``, ``proxies``, ``cert``, ``allow_redirects``.
        :param request_kwargs: passed on to ``requests.Request``, such as ``json`` or ``params``.
        :raises IntergiroApiError: for a status of 400 or above.
        :raises OutcomeUnknown: the bank may have carried out a write that must not be repeated.
        :raises IntergiroError: if there is no session, or the request is not possible.
        """
        return self.client.request(self.method, endpoint, data, headers, extra_options, **request_kwargs)

    def page_getter(
        self,
        endpoint: str | None,
        read: Callable[[bytes], T],
        on_response: Callable[[int, float | None], None] = lambda status, retry_after: None,
    ) -> Callable[[Mapping[str, Any]], T]:
        """As :meth:`.IntergiroClient.page_getter`."""
        return self.client.page_getter(endpoint, read, on_response)

    def check_response(self, response: requests.Response) -> None:
        """Raise the error for a response. The body is not logged.

        :raises IntergiroApiError: for a status of 400 or above.
        :raises OutcomeUnknown: the bank may have carried out a write that must not be repeated.
        """
        self.client.check(response)

    def url_from_endpoint(self, endpoint: str | None) -> str:
        """Return the full URL of an endpoint."""
        return self.settings.url(endpoint)

    def iter_pages(self, endpoint: str, query: Mapping[str, Any] | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yield the records of a list endpoint, page by page.

        :param endpoint: a list endpoint, such as ``transactions``.
        :param query: filters. `limit` is the number of records per page, 1 to 100 (default 100).
        :return: one list of records per page.
        :raises IntergiroResponseError: the response is not a page, or the cursor does not advance.
        """
        from intergiro_provider.pull.pages import decoded, iter_pages, read_page

        path, query = whole_query(endpoint, query)
        warn_of_unknown_filters(path, query)
        for page in iter_pages(self.page_getter(path, read_page), query):
            yield [decoded(record) for record in page.records]

    def iter_records(self, endpoint: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of a list endpoint one by one; see :meth:`iter_pages`."""
        for page in self.iter_pages(endpoint, query):
            yield from page

    def test_connection(self) -> tuple[bool, str]:
        """Log in once and store nothing. The bank counts this login."""
        try:
            settings = self._read_settings()
            lock = self._distributed_lock(settings, session_name(settings.key))
            if lock is not None:
                lock()
        except IntergiroError as error:
            return False, str(error)
        except AirflowException as error:
            return False, f"The connection could not be read: {error}"
        response = AuthClient(settings, _timings().call, self._read_settings).log_in()
        note = "This test was a login, and the bank's fraud prevention counts it."
        chosen = settings.origin == HOSTS[settings.api, settings.environment]
        where = f"{settings.origin} ({settings.api}{', ' + settings.environment if chosen else ''})"
        if response.outcome is Outcome.OK:
            return True, f"{where} accepts the API key. {note}"
        if response.outcome is Outcome.REFUSED:
            return False, (
                f"{where} does not accept the API key (it returned {response.detail}): it is wrong, frozen or blocked, "
                f"or belongs to the other `api` or `environment`. {note}"
            )
        if response.outcome is Outcome.UNSENT:
            return (
                False,
                f"{settings.origin} cannot be reached ({response.why}). Check the host, the network and `proxies`.",
            )
        status = f"status {response.detail}" if response.status else f"no usable response: {response.why}"
        return False, f"{where} did not respond to the login as expected ({status}); it was not repeated. {note}"


def _timings() -> Timings:
    if not uses_execution_api():
        return Timings(lease_write=float("inf"))
    # Airflow's API client repeats a write after this time; a write that is acknowledged sooner was sent once.
    repeats_after = conf.getfloat("workers", "execution_api_retry_wait_min", fallback=1.0)
    return Timings(lease_write=min(0.8 * repeats_after, Timings().lease_round))
