# SPDX-License-Identifier: Apache-2.0
"""Run a pull in a step: resume it, stop it with the step, and show its result in the UI."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableSchema,
    TimeWindow,
    TimeWindowPartitionsDefinition,
)

from dagster_intergiro.checks import Problems
from dagster_intergiro.internals import step_of
from dagster_intergiro.pulls import DirectoryState, IntergiroPull
from intergiro_provider.api.client import IntergiroClient
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.checkpoint import fingerprint
from intergiro_provider.pull.checkpointer import Checkpointer
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import MANIFEST_NAME, Manifest
from intergiro_provider.pull.pages import read_page
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from intergiro_provider.session.driver import finish_renewals

if TYPE_CHECKING:
    from intergiro_provider.pull.bounds import Interval

PULL = "dagster-intergiro/pull"
"""Name of the asset's metadata that holds the :class:`.IntergiroPull`."""
DONE = "intergiro_done"
"""Key in :class:`.DirectoryState` for the partitions that a range run has pulled."""


def run_pull(
    client: IntergiroClient,
    pull: IntergiroPull,
    interval: Interval | None,
    *,
    owner: str = "",
    state: DirectoryState | None = None,
    log: Any = None,
) -> Manifest:
    """Pull into a directory, and return the manifest.

    :param owner: names the step and the partition in this run, the same for each of its retries.
    :param state: lets a retry resume; None: each starts from the beginning.
    """
    request = PullRequest(
        endpoint=pull.endpoint,
        query=pull.query,
        interval=interval,
        file_format=pull.file_format,
        compression=pull.compression,
        parquet_timestamps=pull.parquet_timestamps,
        max_parallel_windows=pull.max_parallel_windows,
    )
    checkpointer = None
    if state is not None and pull.query.get("sort_by") in (None, "created_at"):
        settings = client.settings
        requested = fingerprint(
            settings.url(pull.endpoint), settings.key, pull.path, request.query, interval, pull.file_format,
            pull.compression, pull.parquet_timestamps,
        )  # fmt: skip
        checkpointer = Checkpointer(state, requested, log)

    def on_response(status: int, retry_after: float | None) -> None:
        work.on_response(status, retry_after)

    get_page = client.page_getter(pull.endpoint, read_page, on_response)
    logger = log or logging.getLogger(__name__)
    work = Pull(request, get_page, Target(pull.directory(), owner), logger, checkpointer, finish_renewals)
    return work.run()


def uri_of(directory: Directory) -> str:
    """Return the URI of a directory, without a trailing slash."""
    return Path(str(directory)).as_uri() if directory.local else str(directory)


_NAMES = {"int53": "integer", "int64": "integer", "int128": "integer"}


def _type_name(kind: Any) -> str:
    """Return the name of a type of the manifest's schema."""
    if isinstance(kind, list):
        return f"list<{_type_name(kind[0])}>" if kind else "list"
    return "struct" if isinstance(kind, dict) else _NAMES.get(kind, str(kind))


def run_assets(context: AssetExecutionContext, client: IntergiroClient) -> Iterator[Any]:
    """Pull each selected asset, in each partition of this run, and yield the results."""
    is_partitioned = context.has_partition_key or context.has_partition_key_range
    wanted = {key.asset_key for key in context.selected_asset_check_keys}
    for spec in context.assets_def.specs:
        if spec.key not in context.selected_asset_keys:
            continue
        pull = _pull_of(spec)
        problems = Problems() if spec.key in wanted else None
        states = []
        for partition in context.partition_keys if is_partitioned else (None,):
            step = _Step(context, pull.of_partition(partition), partition)
            states.append(step.state)
            manifest = step.run(client)
            metadata = metadata_of(manifest, step.pull.directory())
            if problems is not None:
                problems.look_at(step.pull.directory(), manifest, partition)
            if partition is not None:
                context.add_asset_metadata(metadata, asset_key=spec.key, partition_key=partition)
        yield MaterializeResult(
            asset_key=spec.key,
            metadata=None if is_partitioned else metadata,
            check_results=[] if problems is None else problems.results(spec.key),
        )
        for state in states:
            state.clear()


class _Step:
    """One partition of one asset in a run.

    :param partition: its key; None: the asset has no partitions.
    """

    def __init__(self, context: AssetExecutionContext, pull: IntergiroPull, partition: str | None) -> None:
        self.pull = pull
        self._context = context
        self._partition = partition
        parent = context.run.parent_run_id
        self._run_id = context.run.run_id
        self.state = DirectoryState(pull.directory(), self._run_id, (self._run_id, *([parent] if parent else ())))

    def run(self, client: IntergiroClient) -> Manifest:
        """Pull, unless an earlier attempt of this step has finished the pull."""
        context, pull = self._context, self.pull
        interval = pull.interval(self._window())
        done = self.state.get(DONE) if context.has_partition_key_range else None
        manifest = Target(pull.directory()).result() if done else None
        requested = [str(interval), repr(pull)]
        if manifest is not None and done == [manifest.pull_id, *requested]:
            context.log.info("An earlier attempt has pulled the partition %s.", self._partition)
            return manifest
        owner = " ".join((self._run_id, step_of(context), self._partition or "")).strip()
        manifest = run_pull(client, pull, interval, owner=owner, state=self.state, log=context.log)
        if context.has_partition_key_range:
            self.state.set(DONE, [manifest.pull_id, *requested])
        return manifest

    def _window(self) -> TimeWindow | None:
        definition = self._context.assets_def.partitions_def
        if self._partition is None or not isinstance(definition, TimeWindowPartitionsDefinition):
            return None
        return definition.time_window_for_partition_key(self._partition)


def _pull_of(spec: AssetSpec) -> IntergiroPull:
    found = spec.metadata.get(PULL)
    pull = getattr(found, "instance", found)
    if not isinstance(pull, IntergiroPull):
        raise IntergiroValueError(
            f"The asset {spec.key.to_user_string()} was not made by intergiro_assets or build_intergiro_asset_specs, "
            "so it is not known what to pull."
        )
    return pull


def metadata_of(manifest: Manifest, directory: Directory) -> dict[str, Any]:
    """Return the metadata of a result for the UI."""
    uri = uri_of(directory)
    metadata: dict[str, Any] = {
        "dagster/row_count": manifest.rows,
        "dagster/uri": uri,
        "bytes": manifest.bytes,
        "parts": len(manifest.parts),
        "pull_id": manifest.pull_id,
        "manifest": manifest_link(uri),
    }
    if manifest.created_from is not None:
        metadata |= {"created_from": manifest.created_from, "created_to": manifest.created_to}
    if isinstance(manifest.schema, dict):
        columns = [TableColumn(name, _type_name(kind)) for name, kind in manifest.schema.items()]
        metadata["dagster/column_schema"] = TableSchema(columns)
    return metadata


def manifest_link(uri: str) -> MetadataValue[Any]:
    """Return a link to the manifest: in the console of the cloud where it is, or its path."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = f"{rest}/{MANIFEST_NAME}".partition("/")
    if scheme in ("s3", "s3a"):
        return MetadataValue.url(f"https://s3.console.aws.amazon.com/s3/object/{quote(bucket)}?prefix={quote(key)}")
    if scheme in ("gs", "gcs"):
        return MetadataValue.url(
            f"https://console.cloud.google.com/storage/browser/_details/{quote(bucket)}/{quote(key)}"
        )
    return MetadataValue.path(unquote(f"{uri}/{MANIFEST_NAME}".removeprefix("file://")))
