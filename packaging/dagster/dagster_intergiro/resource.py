# SPDX-License-Identifier: Apache-2.0
"""IntergiroResource: access to the bank in Dagster code."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import urlsplit

import dagster
from dagster import AssetExecutionContext, ConfigurableResource, DagsterInstance, EnvVar, InitResourceContext
from pydantic import Field, PrivateAttr, field_validator

from dagster_intergiro.words import NAME
from intergiro_provider.api.auth_client import AuthClient
from intergiro_provider.api.client import IntergiroClient
from intergiro_provider.api.settings import ApiSettings, is_loopback, read_settings
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import Renewer
from intergiro_provider.session.timings import Timings

if TYPE_CHECKING:
    from intergiro_provider.pull.manifest import Manifest


def _host_name(host: str | None) -> str:
    return urlsplit(host).hostname or "" if host else ""


TIMINGS = Timings(lease_write=float("inf"))
"""No client repeats a slow write, unlike Airflow's API client."""


class IntergiroResource(ConfigurableResource):  # type: ignore[type-arg]
    """The Intergiro API, with one session that all runs share and that renews itself.

    Examples:
        .. code-block:: python

            defs = Definitions(
                assets=[...],
                resources={"intergiro": IntergiroResource(api_key=EnvVar("INTERGIRO_API_KEY"))},
            )

    """

    api_key: str = Field(
        repr=False,
        description="The API key, as EnvVar(…): Dagster stores a literal value in clear in the repository's snapshot.",
    )
    api: str = Field(default="3d", description="3d (banking as a service) or 2d (business banking).")
    environment: str = Field(default="live", description="live or staging.")
    host: Optional[str] = Field(default=None, description="Another host, as https://…; None: by api and environment.")
    session_store: Optional[str] = Field(
        default=None,
        repr=False,
        description=(
            "Where the session is kept, encrypted: None, the storage of the Dagster instance; postgresql://… (as "
            "EnvVar(…), for the password in it); or file:///an/absolute/directory."
        ),
    )
    max_logins_per_hour: int = Field(default=3, description="Logins in an hour, of all runs together.")
    connect_timeout: float = Field(default=5.0, description="Seconds to establish a connection.")
    read_timeout: float = Field(default=60.0, description="Seconds to wait for the next bytes of a response.")
    proxies: dict[str, str] = Field(default={}, repr=False, description="Scheme to proxy URL, as in requests.")
    verify: str = Field(default="true", description="true, false, or the path of a CA bundle.")
    headers: dict[str, str] = Field(default={}, repr=False, description="Further headers of every request.")

    _instance: Optional[DagsterInstance] = PrivateAttr(default=None)
    _handler: Any = PrivateAttr(default=None)
    _client: Any = PrivateAttr(default=None)

    @field_validator("verify", mode="before")
    @classmethod
    def _verify_as_text(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value

    def get_resource_definition(self) -> Any:
        """Return what Dagster stores of this resource.

        :raises IntergiroValueError: the API key would be stored with it. For a bank on this machine it may be: that
            is a sandbox.
        """
        host = None if isinstance(self.host, EnvVar) else self.host
        if not isinstance(self.api_key, EnvVar) and not is_loopback(_host_name(host)):
            raise IntergiroValueError(
                "`api_key` of IntergiroResource is a literal value, or the value of EnvVar.get_value(). Dagster stores "
                'it in clear in the repository\'s snapshot. Give it as api_key=EnvVar("INTERGIRO_API_KEY").'
            )
        if "://" in (self.session_store or "") and not isinstance(self.session_store, EnvVar):
            if "@" in (self.session_store or "") and ":" in (self.session_store or "").split("://")[1].split("@")[0]:
                raise IntergiroValueError(
                    "`session_store` of IntergiroResource holds a password, which Dagster stores in clear in the "
                    'repository\'s snapshot. Give it as session_store=EnvVar("…").'
                )
        for proxy in self.proxies.values():
            if not isinstance(proxy, EnvVar) and urlsplit(proxy).password:
                raise IntergiroValueError(
                    "`proxies` of IntergiroResource holds a password, which Dagster stores in clear in the "
                    "repository's snapshot. Set the environment variable HTTPS_PROXY instead."
                )
        return super().get_resource_definition()

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Set up the instance and the log of the run."""
        from dagster_intergiro.logs import RunLogHandler

        self._instance = context.instance
        if context.log is not None:
            self._handler = RunLogHandler(context.log)
            self._handler.attach()

    def teardown_after_execution(self, context: InitResourceContext) -> None:
        """Release the run's log."""
        if self._handler is not None:
            self._handler.detach()

    @functools.cached_property
    def settings(self) -> ApiSettings:
        """Return the checked settings.

        :raises IntergiroValueError: names the field.
        """
        return self._read_settings()

    def get_client(self) -> IntergiroClient:
        """Return the client, which all threads of this process may share.

        :raises IntergiroValueError: a field cannot work, or the session cannot be kept here.
        """
        if self._client is None or self._client.pid != os.getpid():
            self._client = IntergiroClient(self.settings, self._shared_session())
        client: IntergiroClient = self._client
        return client

    def iter_records(self, endpoint: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of a list, page by page and in constant memory.

        :param endpoint: the list, such as ``transactions``.
        :param query: its filters; `limit` is the size of a page, 1 to 100 (default 100).
        """
        from intergiro_provider.pull.pages import decoded, iter_pages, read_page

        for page in iter_pages(self.get_client().page_getter(endpoint, read_page), query):
            yield from map(decoded, page.records)

    def pull_to(
        self,
        path: str,
        endpoint: str,
        *,
        query: Mapping[str, Any] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
        lookback: timedelta | None = None,
        file_format: str = "jsonl",
        compression: str | None = None,
        parquet_timestamps: str = "typed",
        max_parallel_windows: int = 16,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Pull a list into the files of a directory, and return the manifest. The result is complete or absent.

        The arguments are those of :class:`.IntergiroPull`.
        """
        from dagster_intergiro.pulls import IntergiroPull
        from dagster_intergiro.running import run_pull

        pull = IntergiroPull(
            endpoint=endpoint,
            path=path,
            query=query or {},
            created_from=created_from,
            created_to=created_to,
            lookback_days=lookback / timedelta(days=1) if lookback else None,
            file_format=file_format,
            compression=compression,
            parquet_timestamps=parquet_timestamps,
            max_parallel_windows=max_parallel_windows,
            storage_options=storage_options or {},
        )
        return run_pull(self.get_client(), pull, pull.interval(None))

    def run(self, context: AssetExecutionContext) -> Iterator[Any]:
        """Pull the selected assets of :func:`.intergiro_assets`, and yield their results.

        :raises Failure: a final error. :raises RetryRequested: a transient one.
        """
        from dagster_intergiro.errors import dagster_errors
        from dagster_intergiro.running import run_assets

        with dagster_errors(context):
            yield from run_assets(context, self.get_client())

    def _shared_session(self) -> SharedSession:
        from dagster_intergiro.cells import open_cells
        from dagster_intergiro.store import CellStore

        settings = self.settings
        instance = self._instance or (DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else None)
        cells = open_cells(self.session_store, instance)
        store = CellStore(cells, Codec(settings.origin, settings.api_key))
        me = Renewer(
            key=settings.key,
            name=f"{socket.gethostname()}:{os.getpid()}",
            connection=NAME,
            max_logins=settings.max_logins_per_hour,
            exclusive=True,  # the lock comes from `session_store`, so every process that finds the session uses it
        )
        bank = AuthClient(settings, TIMINGS.call, self._read_settings)
        lock: Any = functools.partial(cells.lock, store.name)
        return SharedSession(store, bank, me, TIMINGS, lock)

    def _read_settings(self) -> ApiSettings:
        extra = {
            name: getattr(self, name)
            for name in ("api", "environment", "max_logins_per_hour", "connect_timeout", "read_timeout", "proxies")
        }
        settings = read_settings(
            host=self.host,
            port=None,
            schema=None,
            password=self.api_key,
            extra={**extra, "verify": self.verify, "headers": self.headers},
            conn_id=NAME,
        )
        return replace(settings, orchestrator=f"Dagster {dagster.__version__}")
