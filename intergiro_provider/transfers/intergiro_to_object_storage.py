# SPDX-License-Identifier: Apache-2.0
"""Pull a list of the bank into files on any object storage, whole and once.

A light module: it is imported at every parse of every DAG file that uses it, so what makes requests and
writes files is imported when the task runs, and errors where they are raised.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow import __version__ as _airflow_version
from airflow.providers.common.compat.sdk import Asset, BaseOperator

from intergiro_provider.links.intergiro import IntergiroManifestLink, IntergiroPortalLink
from intergiro_provider.operators.rendering import RenderedFields
from intergiro_provider.pull.query import check_format, checked_location, page_query, refuse_bounds_in
from intergiro_provider.query import is_pending, warn_of_unknown_filters, whole_query
from intergiro_provider.retry_policy import wait_as_told
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context, ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.pull.bounds import Interval
    from intergiro_provider.pull.checkpoint import Resume
    from intergiro_provider.pull.manifest import Manifest
    from intergiro_provider.pull.pages import Page
    from intergiro_provider.pull.pull import Pull, PullRequest
    from intergiro_provider.pull.target import Target
    from intergiro_provider.transfers.lineage import Lineage


airflow_version = tuple(int(number) for number in _airflow_version.split(".")[:2])


class IntergiroToObjectStorageOperator(RenderedFields, BaseOperator):
    """Pull a list, or an interval of it, into files, and return the manifest that names them.

    The result is a directory with the parts ``part-<n>-<pull id>.jsonl[.gz|.zst]``, one record a line, byte
    for byte as the bank sent it, or ``….parquet``, and ``_manifest.json``. It appears whole or not at all: a run
    of the same path replaces it, a run that fails leaves it as it was. Read what the manifest names; while no pull is
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
    :param query: the query string, a dict: filters, and ``limit`` (1 to 100 records a page, 100 by default).
        (templated)
    :param created_from: keep records with ``created_from ≤ created_at < created_to``: an aware datetime, or a
        str in ISO 8601; a bare date is 00:00 UTC, and what is finer than a millisecond is cut off. Leave out
        both bounds to pull everything. (templated)
    :param created_to: see ``created_from``. (templated)
    :param file_format: ``jsonl``, or ``parquet``, which needs the package pyarrow: all parts have the one schema that
        holds every record, see ``docs/reference/parquet.md``.
    :param compression: None, ``gzip``, or ``zstd``, which for JSON lines needs the package zstandard. Of Parquet, it
        is the compression of the pages inside the files.
    :param parquet_timestamps: of Parquet, what fields named ``…_at`` become that hold ISO 8601 with an offset:
        ``typed``: timestamps in UTC, to the microsecond; ``raw``: strings, as the bank sent them.
    :param max_parallel_windows: how many windows of the interval may be pulled side by side, at most, each with a
        connection of its own. A pull starts with one and adds more while that makes it faster; after a 429, or when the
        bank slows down, it uses fewer. 1 is one cursor, as are no bounds, and a query with another order than by
        ``created_at``.
    :param lookback: moves ``created_from`` back, to pull again what may have changed since:
        ``timedelta(days=3)``.
    :param watermark: an asset, which has to be among the ``outlets`` as well. Each pull then begins where the one
        before it ended, and ``created_from`` is only for the first. Where that end was younger than five minutes, the
        next begins five minutes before the pull did, since the bank may list a record late: the same record can come
        in two increments then. Each run needs a ``path`` of its own, and the DAG ``max_active_runs=1``. From Airflow
        3.3 on, which keeps the state of assets.
    :param intergiro_conn_id: the connection. (templated)
    :return: the manifest: ``{version, pull_id, endpoint, parts: [{path, rows, bytes, sha256}], rows, bytes,
        first_id, last_id, created_from, created_to, complete_until, provider_version}``; a part's path is relative to
        ``path``. ``complete_until`` is ``created_to``, or, if that was in the future, when the pull began.
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
        wait_as_told(self)

    def _check_constants(self) -> None:
        """Refuse at once, when the DAG is parsed, what can be judged before templates are rendered."""
        check_format(self.file_format, self.compression, self.parquet_timestamps)
        self._check_watermark()
        windows = self.max_parallel_windows
        if isinstance(windows, bool) or not isinstance(windows, int) or windows < 1:
            from intergiro_provider.exceptions import IntergiroValueError

            raise IntergiroValueError(f"`max_parallel_windows` has to be a whole number, 1 or more, not {windows!r}")
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
                "`watermark` needs Airflow 3.3 or later, which keeps the state of assets; leave it out and give bounds"
            )
        elif self.watermark not in self.outlets:
            problem = "`watermark` has to be among the `outlets` as well: outlets=[the same asset]"
        elif self.created_from is None or self.created_to is None:
            problem = (
                "`watermark` needs `created_to`, the end of each pull, and `created_from`, the beginning of the first"
            )
        else:
            return
        from intergiro_provider.exceptions import IntergiroValueError

        raise IntergiroValueError(problem)

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Pull, publish, and return the manifest."""
        from intergiro_provider.exceptions import IntergiroError
        from intergiro_provider.pull.location import object_storage_path
        from intergiro_provider.pull.pull import PullStopped

        path = object_storage_path(self.path)
        self._thread = threading.get_ident()
        links = self.operator_extra_links
        # Airflow 3 stores an XCom for each link when the task has ended, an empty one where there is no link.
        self.operator_extra_links = [link for link in links if not isinstance(link, IntergiroManifestLink)]
        try:
            manifest, interval, began = self._run(context, path)
        except PullStopped:
            raise IntergiroError("the task was told to stop; nothing was published") from None
        finally:
            # From here on nothing waits for the bank: Airflow calls on_kill after a time-out, too.
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
        resume = self._resume(context, request, hook)
        self._lineage = lineage = Lineage(hook.settings.url(self.endpoint), path)

        def answered(status: int, retry_after: float | None) -> None:
            pull.answered(status, retry_after)

        ask = hook.page_getter(endpoint, read_page, answered)

        def get_page(query: dict[str, Any]) -> Page:
            page = ask(query)
            lineage.look_at(page)
            return page

        self._pull = pull = Pull(request, get_page, target, self.log, resume, finish_renewals)
        if self._killed:
            raise PullStopped
        manifest = pull.run()
        lineage.published(manifest)
        return manifest, request.interval, pull.began

    def _interval(self, context: Context, target: Target) -> Interval | None:
        from intergiro_provider.pull.bounds import parse_interval, read_instant

        if self.watermark is None:
            interval = parse_interval(self.created_from, self.created_to, self.lookback)
            return interval and self._not_in_the_future(interval)
        from intergiro_provider.pull.watermark import STATE_KEY, increment

        asked = parse_interval(self.created_from, self.created_to)
        assert asked is not None
        stored = context["asset_state_store"][self.watermark].get(STATE_KEY)
        watermark = None if stored is None else read_instant("watermark", stored)
        interval = self._not_in_the_future(increment(asked, watermark, target.result(), self.lookback))
        self.log.info("This increment is from %s to %s.", *interval)
        return interval

    def _not_in_the_future(self, interval: Interval) -> Interval:
        from intergiro_provider.exceptions import IntergiroValueError

        now = datetime.now(UTC)
        if interval.start >= now:
            raise IntergiroValueError(
                f"`created_from` ({interval.created_from}) is in the future, so there is nothing to pull yet. Run the "
                f"task after `created_to` ({interval.created_to})"
            )
        if interval.end > now:
            self.log.warning(
                "`created_to` (%s) is in the future: records that are created from now on are not in the result, whose "
                "manifest says so in `complete_until`. Run the task again after that time.", interval.created_to,
            )  # fmt: skip
        return interval

    def _announce(self, context: Context, manifest: Manifest) -> None:
        """Tell those who wait for an asset what has come."""
        about: dict[str, Any] = {"rows": manifest.rows, "bytes": manifest.bytes, "pull_id": manifest.pull_id}
        if manifest.created_to is not None:
            about["watermark"] = manifest.created_to
        for outlet in self.outlets:
            if isinstance(outlet, Asset) and (events := context.get("outlet_events")) is not None:
                events[outlet].extra.update(about)

    def _move_watermark(self, context: Context, pulled: Interval | None, began: datetime) -> None:
        if self.watermark is None or pulled is None:
            return
        from intergiro_provider.pull.watermark import STATE_KEY, reached

        state = context["asset_state_store"][self.watermark]
        now = reached(pulled, began)
        if str(state.get(STATE_KEY) or "") < now:  # not when an earlier increment was pulled again
            state.set(STATE_KEY, now)

    def _resume(self, context: Context, request: PullRequest, hook: IntergiroHook) -> Resume | None:
        """What lets a retry go on where this try ends; None where Airflow (before 3.3) keeps no state for a task."""
        from intergiro_provider.pull.checkpoint import Resume, fingerprint

        if (store := context.get("task_state_store")) is None:
            return None
        if request.query.get("sort_by") not in (None, "created_at"):
            return None  # between two tries, a record could move to behind the place where the next goes on
        settings = hook.settings
        asked_for = fingerprint(
            settings.url(self.endpoint), settings.key, checked_location(self.path), request.query, request.interval,
            request.file_format, request.compression, request.parquet_timestamps,
        )  # fmt: skip
        return Resume(store, asked_for, self.log)

    def _link(self, context: Context, path: ObjectStoragePath) -> bool:
        from intergiro_provider.pull.manifest import MANIFEST_NAME

        self.log.info("Published: %s", path / MANIFEST_NAME)
        try:
            return IntergiroManifestLink.persist(context, path / MANIFEST_NAME)
        except Exception as error:  # the result is published: that is no failure
            self.log.warning("There is no link to the manifest: %s.", type(error).__name__)
            return False

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Tell OpenLineage which list was read, which directory was written, with which fields and how many rows."""
        return self._lineage.to_openlineage() if self._lineage else None

    def _target(self, path: ObjectStoragePath, context: Context) -> Target:
        from intergiro_provider.pull.directory import Directory
        from intergiro_provider.pull.target import Target

        return Target(Directory(path.fs, path.path), _owner(context))

    def on_kill(self) -> None:
        """Stop the pull; it publishes nothing."""
        self._killed = True
        if (pull := self._pull) is not None:
            pull.stop()
        if threading.get_ident() == self._thread:
            # Airflow calls this from its signal handler, in the thread that is waiting for the bank: an
            # exception ends the wait.
            from intergiro_provider.pull.pull import PullStopped

            raise PullStopped


def _owner(context: Context) -> str:
    """Names the task instance, the same for each of its tries."""
    ti = context.get("ti")
    if ti is None:
        return ""
    return f"{ti.dag_id}.{ti.task_id} {ti.run_id} {getattr(ti, 'map_index', -1)}"
