# SPDX-License-Identifier: Apache-2.0
"""Pull a list of the bank into files, on a local disk or an object store.

Each parse of a DAG file that uses this module imports it. So it imports at once only what a parse needs. What sends
requests and writes files is imported when the task runs.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow import __version__ as _airflow_version
from airflow.providers.common.compat.sdk import Asset, BaseOperator

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.links.intergiro import IntergiroManifestLink, IntergiroPortalLink
from intergiro_provider.operators.rendering import RenderedFields
from intergiro_provider.pull.arguments import check_format, checked_location, page_query, refuse_bounds_in
from intergiro_provider.query import is_pending, warn_of_unknown_filters, whole_query
from intergiro_provider.retry_policy import set_retry_policy
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context, ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.pull.bounds import Interval
    from intergiro_provider.pull.checkpointer import Checkpointer
    from intergiro_provider.pull.manifest import Manifest
    from intergiro_provider.pull.pages import Page
    from intergiro_provider.pull.pull import Pull, PullRequest
    from intergiro_provider.pull.target import Target
    from intergiro_provider.transfers.lineage import Lineage


airflow_version = tuple(int(number) for number in _airflow_version.split(".")[:2])


class IntergiroToObjectStorageOperator(RenderedFields, BaseOperator):
    """Pull a list, or a time interval of it, into the files of a directory, and return their manifest.

    The directory then holds ``_manifest.json`` and the parts that it names: ``part-<n>-<pull id>.jsonl[.gz|.zst]``,
    with one record per line, byte for byte as the bank sent it, or ``part-<n>-<pull id>.parquet``. The result is
    complete or absent. A later pull into the directory replaces it. A failed pull leaves it unchanged. Read the parts
    that the manifest names. While no pull is running, a glob over ``part-*`` finds the same files.

    .. code-block:: python

        IntergiroToObjectStorageOperator(
            task_id="transactions",
            endpoint="transactions",
            created_from="{{ data_interval_start }}",
            created_to="{{ data_interval_end }}",
            path="s3://aws_default@lake/intergiro/transactions/{{ ds }}",
            compression="gzip",
        )

    In Airflow 3, a run with a plain ``@daily`` or cron schedule has an empty data interval, which is an error here.
    Schedule the DAG with ``CronDataIntervalTimetable``, or compute the bounds from the run's date.

    :param endpoint: the list, such as ``transactions``; the provider adds the API's version. (templated)
    :param path: the directory of the result, an ObjectStoragePath URL such as ``file:///data/x`` or
        ``s3://conn_id@bucket/x``. (templated)
    :param query: the query string, a dict: filters, and ``limit`` (1 to 100 records per page; default 100). (templated)
    :param created_from: pull the records with ``created_from ≤ created_at < created_to``. An aware datetime, or a str
        in ISO 8601, cut to the millisecond; a date is 00:00 UTC. Leave out both bounds to pull everything. (templated)
    :param created_to: see ``created_from``. (templated)
    :param file_format: ``jsonl`` or ``parquet``. Parquet needs the package pyarrow. All its parts have one schema,
        which holds every record.
    :param compression: None, ``gzip`` or ``zstd``. JSON lines need the package zstandard for ``zstd``. In Parquet
        files, the pages are compressed.
    :param parquet_timestamps: what fields named ``…_at`` become in Parquet if they hold ISO 8601 with an offset.
        ``typed``: timestamps in UTC, to the microsecond; ``raw``: strings, as the bank sent them.
    :param max_parallel_windows: the largest number of time windows that are pulled side by side, each with its own
        connection. A pull starts with one window and adds more while that makes it faster. After a 429, or if the bank
        slows down, it uses fewer. A pull without bounds, or in another order than by ``created_at``, uses one.
    :param lookback: moves ``created_from`` back, to pull records again that may have changed, such as
        ``timedelta(days=3)``.
    :param watermark: an asset, which must also be one of the ``outlets``. Each pull then begins at the ``created_to``
        of the last one, but not later than five minutes before the last one began, because the bank may list a record
        late. So a record can be in two increments. ``created_from`` applies to the first pull only. Give each run its
        own ``path``, and set ``max_active_runs=1`` on the DAG. Needs Airflow 3.3.
    :param intergiro_conn_id: the connection. (templated)
    :return: the manifest: ``{version, pull_id, endpoint, parts: [{path, rows, bytes, sha256}], rows, bytes, first_id,
        last_id, created_from, created_to, complete_until, query, schema, provider_version}``. The path of a part is
        relative to ``path``. ``complete_until`` is ``created_to``, or the time at which the pull began if that is
        earlier.
    """

    template_fields: Sequence[str] = (
        "endpoint", "path", "query", "created_from", "created_to", "intergiro_conn_id",
    )  # fmt: skip
    template_fields_renderers = {"query": "json"}  # noqa: RUF012 - Airflow's form
    ui_color = "#d9e8f6"
    operator_extra_links: Collection[BaseOperatorLink] = (IntergiroManifestLink(), IntergiroPortalLink())

    _pull: Pull | None = None
    _lineage: Lineage | None = None
    _thread: int | None = None
    _killed = False

    def __init__(
        self,
        *,
        endpoint: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
        file_format: str = "jsonl",
        compression: str | None = None,
        parquet_timestamps: str = "typed",
        max_parallel_windows: int = 16,
        lookback: timedelta | None = None,
        watermark: Asset | None = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.path = path
        self.query = query
        self.created_from = created_from
        self.created_to = created_to
        self.file_format = file_format
        self.compression = compression
        self.parquet_timestamps = parquet_timestamps
        self.max_parallel_windows = max_parallel_windows
        self.lookback = lookback
        self.watermark = watermark
        self.intergiro_conn_id = intergiro_conn_id
        self._check_constants()
        set_retry_policy(self)

    def _check_constants(self) -> None:
        """Check when the DAG is parsed all values that are no templates."""
        check_format(self.file_format, self.compression, self.parquet_timestamps)
        self._check_watermark()
        windows = self.max_parallel_windows
        if isinstance(windows, bool) or not isinstance(windows, int) or windows < 1:
            raise IntergiroValueError(f"`max_parallel_windows` must be an integer, 1 or more, not {windows!r}.")
        bounds = (self.created_from, self.created_to)
        _, query = whole_query(self.endpoint, None if is_pending(self.query) else self.query)
        page_query(query)
        if bounds != (None, None):
            refuse_bounds_in(query)
        if not is_pending(self.path):
            checked_location(self.path)
        if None in bounds or not any(map(is_pending, bounds)):
            from intergiro_provider.pull.bounds import parse_interval

            parse_interval(*bounds, self.lookback)

    def _check_watermark(self) -> None:
        if self.watermark is None:
            return
        if airflow_version < (3, 3):
            problem = (
                "`watermark` needs Airflow 3.3 or later, which stores the state of assets. Leave it out, and give "
                "bounds."
            )
        elif self.watermark not in self.outlets:
            problem = "The asset of `watermark` must also be one of the `outlets`: outlets=[the same asset]."
        elif self.created_from is None or self.created_to is None:
            problem = (
                "`watermark` needs `created_to`, the end of each pull, and `created_from`, the beginning of the first "
                "pull."
            )
        else:
            return
        raise IntergiroValueError(problem)

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Pull, publish, and return the manifest."""
        from intergiro_provider.pull.location import object_storage_path
        from intergiro_provider.pull.pull import PullStopped

        path = object_storage_path(self.path)
        self._thread = threading.get_ident()
        links = self.operator_extra_links
        # When a task ends, Airflow 3 stores an XCom for each of its links, even an empty one.
        self.operator_extra_links = [link for link in links if not isinstance(link, IntergiroManifestLink)]
        try:
            manifest, interval, began = self._run(context, path)
        except PullStopped:
            raise IntergiroError("The task was told to stop. Nothing was published.") from None
        finally:
            # From here on nothing waits for the bank. Airflow calls on_kill after a timeout, too.
            self._thread = self._pull = None
        self._announce(context, manifest)
        self._move_watermark(context, interval, began)
        if self._link(context, path):
            self.operator_extra_links = links
        return manifest.to_dict()

    def _run(self, context: Context, path: ObjectStoragePath) -> tuple[Manifest, Interval | None, datetime]:
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.pull.pages import read_page
        from intergiro_provider.pull.pull import Pull, PullRequest, PullStopped
        from intergiro_provider.session.driver import finish_renewals
        from intergiro_provider.transfers.lineage import Lineage

        endpoint, query = whole_query(self.endpoint, self.query)
        warn_of_unknown_filters(endpoint, query)
        target = self._target(path, context)
        request = PullRequest(
            endpoint=str(self.endpoint),
            query=query,
            interval=self._interval(context, target),
            file_format=self.file_format,
            compression=self.compression,
            parquet_timestamps=self.parquet_timestamps,
            max_parallel_windows=self.max_parallel_windows,
        )
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="GET")
        checkpointer = self._checkpointer(context, request, hook)
        self._lineage = lineage = Lineage(hook.settings.url(self.endpoint), path)

        def on_response(status: int, retry_after: float | None) -> None:
            pull.on_response(status, retry_after)

        request_page = hook.page_getter(endpoint, read_page, on_response)

        def get_page(query: dict[str, Any]) -> Page:
            page = request_page(query)
            lineage.add(page)
            return page

        self._pull = pull = Pull(request, get_page, target, self.log, checkpointer, finish_renewals)
        if self._killed:
            raise PullStopped
        manifest = pull.run()
        lineage.set_manifest(manifest)
        return manifest, request.interval, pull.began

    def _interval(self, context: Context, target: Target) -> Interval | None:
        from intergiro_provider.pull.bounds import parse_interval, read_instant

        if self.watermark is None:
            interval = parse_interval(self.created_from, self.created_to, self.lookback)
            return interval and self._not_in_the_future(interval)
        from intergiro_provider.pull.watermark import STATE_KEY, next_increment

        requested = parse_interval(self.created_from, self.created_to)
        assert requested is not None
        stored = context["asset_state_store"][self.watermark].get(STATE_KEY)
        watermark = None if stored is None else read_instant("watermark", stored)
        interval = self._not_in_the_future(next_increment(requested, watermark, target.result(), self.lookback))
        self.log.info("This increment is from %s to %s.", *interval)
        return interval

    def _not_in_the_future(self, interval: Interval) -> Interval:
        now = datetime.now(UTC)
        if interval.start >= now:
            raise IntergiroValueError(
                f"`created_from` ({interval.created_from}) is in the future, so there is nothing to pull yet. Run the "
                f"task after `created_to` ({interval.created_to})."
            )
        if interval.end > now:
            self.log.warning(
                "`created_to` (%s) is in the future. Records that are created from now on are not in the result: see "
                "`complete_until` in the manifest. Run the task again after that time.", interval.created_to,
            )  # fmt: skip
        return interval

    def _announce(self, context: Context, manifest: Manifest) -> None:
        """Add the result to the events of the outlets."""
        extra: dict[str, Any] = {"rows": manifest.rows, "bytes": manifest.bytes, "pull_id": manifest.pull_id}
        if manifest.created_to is not None:
            extra["watermark"] = manifest.created_to
        for outlet in self.outlets:
            if isinstance(outlet, Asset) and (events := context.get("outlet_events")) is not None:
                events[outlet].extra.update(extra)

    def _move_watermark(self, context: Context, pulled: Interval | None, began: datetime) -> None:
        if self.watermark is None or pulled is None:
            return
        from intergiro_provider.pull.watermark import STATE_KEY, watermark_after

        state = context["asset_state_store"][self.watermark]
        watermark = watermark_after(pulled, began)
        if str(state.get(STATE_KEY) or "") < watermark:  # false if an earlier increment was pulled again
            state.set(STATE_KEY, watermark)

    def _checkpointer(self, context: Context, request: PullRequest, hook: IntergiroHook) -> Checkpointer | None:
        """Return what lets a retry resume; None before Airflow 3.3, which stores no state for a task."""
        from intergiro_provider.pull.checkpoint import fingerprint
        from intergiro_provider.pull.checkpointer import Checkpointer

        if (store := context.get("task_state_store")) is None:
            return None
        if request.query.get("sort_by") not in (None, "created_at"):
            return None  # a record could move past the cursor between two attempts
        settings = hook.settings
        requested = fingerprint(
            settings.url(self.endpoint), settings.key, checked_location(self.path), request.query, request.interval,
            request.file_format, request.compression, request.parquet_timestamps,
        )  # fmt: skip
        return Checkpointer(store, requested, self.log)

    def _link(self, context: Context, path: ObjectStoragePath) -> bool:
        from intergiro_provider.pull.manifest import MANIFEST_NAME

        self.log.info("Published: %s", path / MANIFEST_NAME)
        try:
            return IntergiroManifestLink.persist(context, path / MANIFEST_NAME)
        except Exception as error:  # the result is published, so the task has succeeded
            self.log.warning("The link to the manifest could not be stored (%s).", type(error).__name__)
            return False

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return the list that was read and the directory that was written, with its fields and its number of rows."""
        return self._lineage.to_openlineage() if self._lineage else None

    def _target(self, path: ObjectStoragePath, context: Context) -> Target:
        from intergiro_provider.pull.directory import Directory
        from intergiro_provider.pull.target import Target

        return Target(Directory(path.fs, path.path), _owner(context))

    def on_kill(self) -> None:
        """Stop the pull. It publishes nothing."""
        self._killed = True
        if (pull := self._pull) is not None:
            pull.stop()
        if threading.get_ident() == self._thread:
            # Airflow calls this from its signal handler, in the thread that waits for the pull. An exception ends the
            # wait.
            from intergiro_provider.pull.pull import PullStopped

            raise PullStopped


def _owner(context: Context) -> str:
    """Return a name of the task instance, the same in each attempt."""
    ti = context.get("ti")
    if ti is None:
        return ""
    return f"{ti.dag_id}.{ti.task_id} {ti.run_id} {getattr(ti, 'map_index', -1)}"
