# SPDX-License-Identifier: Apache-2.0
"""Pull a list of the bank into files on any object storage, whole and once.

A light module: it is imported at every parse of every DAG file that uses it, so what makes requests and
writes files is imported when the task runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.files import check_format
from intergiro_provider.pull.query import is_pending, page_query, refuse_bounds_in

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from requests import Response

    from intergiro_provider.pull.pull import Pull
    from intergiro_provider.pull.target import Target


class IntergiroToObjectStorageOperator(BaseOperator):
    """Pull a list, or an interval of it, into files, and return the manifest that names them.

    The result is a directory with the parts ``part-<n>-<pull id>.jsonl[.gz|.zst]``, one record a line, byte
    for byte as the bank sent it, and ``_manifest.json``. It appears whole or not at all: a run of the same
    path replaces it, a run that fails leaves it as it was. Read what the manifest names; while no pull is
    running, a glob over the parts finds the same files.

    .. code-block:: python

        IntergiroToObjectStorageOperator(
            task_id="transactions",
            endpoint="transactions",
            created_from="{{ data_interval_start }}",
            created_to="{{ data_interval_end }}",
            path="s3://aws_default@lake/intergiro/transactions/{{ ds }}",
            compression="gzip",
        )

    In Airflow 3 the data interval of a plain ``@daily`` or cron schedule is empty, which is an error here: schedule the
    DAG with ``CronDataIntervalTimetable``, or compute the bounds from the run's date.

    :param endpoint: the list, such as ``transactions``; the API's version is put before it. (templated)
    :param path: the directory for the result, an ObjectStoragePath URL such as ``file:///data/x`` or
        ``s3://conn_id@bucket/x``. (templated)
    :param params: the query: filters, ``limit`` (1 to 100 records a page, 100 by default), ``sort_by``, ….
        (templated)
    :param created_from: keep records with ``created_from ≤ created_at < created_to``: an aware datetime, or a
        str in ISO 8601; a bare date is 00:00 UTC, and what is finer than a millisecond is cut off. Leave out
        both bounds to pull everything. (templated)
    :param created_to: see ``created_from``. (templated)
    :param file_format: ``jsonl``; ``parquet`` is for a coming version.
    :param compression: None, ``gzip``, or ``zstd``, which needs the package zstandard.
    :param max_parallel_windows: how many windows of the interval may be pulled side by side, each with a connection
        of its own. A heavy window is cut again; after a 429 fewer are pulled at once. 1 is one cursor, as are no
        bounds, and a query with another order than by ``created_at``.
    :param lookback: moves ``created_from`` back, to pull again what may have changed since:
        ``timedelta(days=3)``.
    :param intergiro_conn_id: the connection. (templated)
    :return: the manifest: ``{version, pull_id, endpoint, parts: [{path, rows, bytes, sha256}], rows, bytes,
        first_id, last_id, created_from, created_to, provider_version}``; a part's path is relative to ``path``.
    """

    template_fields: Sequence[str] = (
        "endpoint", "path", "query", "created_from", "created_to", "intergiro_conn_id",
    )  # fmt: skip
    template_fields_renderers = {"query": "json"}  # noqa: RUF012 - Airflow's form
    ui_color = "#e3f1ec"

    _pull: Pull | None = None
    _thread: int | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> IntergiroToObjectStorageOperator:
        # Airflow has a `params` of its own, the DAG's Params, and mixes it into ours before __init__ is called. Nothing
        # of that may go to the bank, so ours is kept as it came.
        self = super().__new__(cls)
        if isinstance(own := kwargs.get("params"), dict):
            self.__dict__["_own_params"] = own
        return self

    def __init__(
        self,
        *,
        endpoint: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
        file_format: str = "jsonl",
        compression: str | None = None,
        max_parallel_windows: int = 4,
        lookback: timedelta | None = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.path = path
        self.query = self._query_of(params or {}, self.__dict__.pop("_own_params", {}))
        self.created_from = created_from
        self.created_to = created_to
        self.file_format = file_format
        self.compression = compression
        self.max_parallel_windows = max_parallel_windows
        self.lookback = lookback
        self.intergiro_conn_id = intergiro_conn_id
        self._check_constants()

    def _query_of(self, mixed: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
        """What the user meant by ``params``.

        :param mixed: what reached ``__init__``: the user's and the DAG's Params. :param own: the user's, where known: a
            mapped task's are mixed before.
        """
        if own and own.keys() <= mixed.keys():
            return dict(own)
        dag = self.get_dag()
        of_the_dag = _values(dag.params) if dag else {}
        return {
            name: value for name, value in _values(mixed).items() if name not in of_the_dag or of_the_dag[name] != value
        }

    def _check_constants(self) -> None:
        """Refuse at once, when the DAG is parsed, what can be judged before templates are rendered."""
        check_format(self.file_format, self.compression)
        windows = self.max_parallel_windows
        if isinstance(windows, bool) or not isinstance(windows, int) or windows < 1:
            raise IntergiroValueError(f"`max_parallel_windows` has to be a whole number, 1 or more, not {windows!r}")
        if not is_pending(self.query.get("limit")):
            page_query(self.query)
        bounds = (self.created_from, self.created_to)
        if bounds != (None, None):
            refuse_bounds_in(self.query)
        if None in bounds or not any(map(is_pending, bounds)):
            parse_interval(*bounds, self.lookback)

    def execute(self, context: Context) -> dict[str, Any]:
        """Pull, publish, and return the manifest."""
        from intergiro_provider.api.errors import retry_after_of
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.pull.pull import Pull, PullRequest, PullStopped

        request = PullRequest(
            endpoint=self.endpoint,
            params=self.query,
            interval=parse_interval(self.created_from, self.created_to, self.lookback),
            file_format=self.file_format,
            compression=self.compression,
            max_parallel_windows=self.max_parallel_windows,
        )
        target = self._target(context)
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="GET")

        def fetch(query: dict[str, Any]) -> bytes:
            body: bytes = hook.run(self.endpoint, query, hooks={"response": answered}).content
            return body

        pull = Pull(request, fetch, target, self.log)

        def answered(response: Response, **_: Any) -> None:
            pull.answered(response.status_code, retry_after_of(response.headers))

        self._thread, self._pull = threading.get_ident(), pull
        try:
            manifest = pull.run()
        except PullStopped:
            raise IntergiroError("the task was told to stop; nothing was published") from None
        finally:
            self._pull = None
        return manifest.to_dict()

    def _target(self, context: Context) -> Target:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        from intergiro_provider.pull.directory import Directory
        from intergiro_provider.pull.target import Target

        location = str(self.path).strip()
        if "://" not in location and not location.startswith("/"):
            raise IntergiroValueError(
                f"`path` has to be a URL such as s3://conn_id@bucket/directory, or an absolute path, not {self.path!r}"
            )
        try:
            path = ObjectStoragePath(location)
            fs = path.fs
        except (ImportError, ValueError) as error:
            raise IntergiroValueError(
                f"`path`: there is no file system for {location.partition('://')[0]}:// here ({error}); "
                "install the Airflow provider that brings it"
            ) from error
        return Target(Directory(fs, path.path), _owner(context))

    def on_kill(self) -> None:
        """Stop the pull; it publishes nothing."""
        pull = self._pull
        if pull is None:
            return
        pull.stop()
        if threading.get_ident() == self._thread:
            # Airflow calls this from its signal handler, in the thread that is waiting for the bank: an
            # exception ends the wait.
            from intergiro_provider.pull.pull import PullStopped

            raise PullStopped


_JSON = (str, int, float, list, tuple, dict)


def _values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Airflow's Params without their schemas, as far as they have a value yet."""
    values = {name: getattr(param, "value", param) for name, param in params.items()}
    return {name: value for name, value in values.items() if value is None or isinstance(value, _JSON)}


def _owner(context: Context) -> str:
    """Names the task instance, the same for each of its tries."""
    ti = context.get("ti")
    if ti is None:
        return ""
    return f"{ti.dag_id}.{ti.task_id} {ti.run_id} {getattr(ti, 'map_index', -1)}"
