# SPDX-License-Identifier: Apache-2.0
"""The description of a pull, its target directory, and the state with which a retried step resumes."""

# Without `annotations` of __future__: Dagster reads the types of a Resolvable's fields.

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from dagster import Resolvable, Resolver

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.arguments import check_format, page_query
from intergiro_provider.pull.bounds import Interval, parse_interval
from intergiro_provider.pull.directory import Directory

PARTITION = "{partition}"
STATE_NAME = "_dagster.json"
"""File in the directory of a result while a step runs or after it has failed: the state for its retry."""


@dataclass(frozen=True, kw_only=True)
class IntergiroPull(Resolvable):
    """A list of the bank, as an asset: what to pull, and where to put the files.

    Each partition of an asset has its own directory: `{partition}` in `path` is replaced by its key; without
    `{partition}`, the key is appended. Time-window partitions are pulled by `created_at`. For other partitions, use
    `{partition}` in `endpoint` or in the query's values.

    :param endpoint: the list, such as ``transactions``.
    :param path: directory of the result: an absolute path, or an fsspec URL such as ``s3://lake/transactions``.
    :param name: last part of the asset key; None: made from the endpoint.
    :param query: filters of the list.
    :param created_from: of an asset without time-window partitions, the first instant: ISO 8601; a bare date is 00:00
        UTC. None, together with `created_to`: everything.
    :param created_to: the instant at which the interval has ended.
    :param file_format: ``jsonl`` or ``parquet`` (extra ``parquet``).
    :param compression: None, ``gzip`` or ``zstd`` (for JSON lines: extra ``zstd``).
    :param parquet_timestamps: ``typed`` or ``raw``.
    :param max_parallel_windows: how many time windows are pulled side by side, at most.
    :param lookback_days: days by which each interval begins earlier, to pull late changes again.
    :param storage_options: arguments of the fsspec file system. They stay in the process and out of the snapshot.
    """

    endpoint: str
    path: str
    name: str | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    created_from: Annotated[str | datetime | None, Resolver.default(model_field_type=str | None)] = None
    created_to: Annotated[str | datetime | None, Resolver.default(model_field_type=str | None)] = None
    file_format: str = "jsonl"
    compression: str | None = None
    parquet_timestamps: str = "typed"
    max_parallel_windows: int = 16
    lookback_days: float | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_format(self.file_format, self.compression, self.parquet_timestamps)
        page_query(self.query)
        if "://" not in self.path and not self.path.startswith(("/", PARTITION)):
            raise IntergiroValueError(
                f"`path` is {self.path!r}; it has to be an absolute path, or a URL such as s3://bucket/directory."
            )
        if (self.created_from, self.created_to) != (None, None):  # else the partition has bounds
            parse_interval(self.created_from, self.created_to, self.lookback)

    @property
    def lookback(self) -> timedelta | None:
        """The time by which an interval begins earlier."""
        return timedelta(days=self.lookback_days) if self.lookback_days else None

    @property
    def short_name(self) -> str:
        """The endpoint as a name for Dagster: ``transactions`` of ``/v3/transactions``."""
        words = self.endpoint.partition("?")[0].strip("/").split("/")
        words = [word for word in words if word not in ("", PARTITION)]
        if len(words) > 1 and words[0][:1] == "v" and words[0][1:].isdecimal():
            del words[0]
        return "".join(c if c.isalnum() else "_" for c in (self.name or "_".join(words)))

    def of_partition(self, partition: str | None) -> Self:
        """Return the pull with the partition's key filled in; None: the asset has no partitions."""
        if partition is None:
            return self
        safe = "".join(c if c.isalnum() or c in "-_.+" else "-" for c in partition)
        path = self.path if PARTITION in self.path else f"{self.path.rstrip('/')}/{PARTITION}"
        query = {
            key: value.replace(PARTITION, partition) if isinstance(value, str) else value
            for key, value in self.query.items()
        }
        return replace(
            self, path=path.replace(PARTITION, safe), endpoint=self.endpoint.replace(PARTITION, partition), query=query
        )

    def directory(self) -> Directory:
        """Return the directory of the result.

        :raises IntergiroValueError: there is no such file system here.
        """
        return open_directory(self.path, self.storage_options)

    def interval(self, window: tuple[datetime, datetime] | None) -> Interval | None:
        """Return what to pull.

        :param window: of the partition; None: it has none, and the bounds of this pull hold.
        """
        start, end = window or (self.created_from, self.created_to)
        return parse_interval(start, end, self.lookback)


def open_directory(path: str, storage_options: Mapping[str, Any]) -> Directory:
    """Return a directory on any fsspec file system.

    :raises IntergiroValueError: there is no such file system here.
    """
    import fsspec  # type: ignore[import-untyped]

    try:
        file_system, root = fsspec.core.url_to_fs(path, **storage_options)
    except (ImportError, ValueError) as error:
        raise IntergiroValueError(
            f"`path`: no file system for {path.partition('://')[0]}:// is installed ({error}). Install its package, "
            "such as s3fs or gcsfs."
        ) from error
    return Directory(file_system, root)


class DirectoryState:
    """The state for the retry of a step, in the directory of the result: the pull to resume, and finished pulls.

    :param runs: the run, and the run that it repeats. State of other runs is ignored.
    """

    def __init__(self, directory: Directory, run: str, runs: tuple[str, ...]) -> None:
        self._directory = directory
        self._run = run
        self._runs = runs

    def get(self, key: str, /) -> Any:
        """Return the value; None if there is none, or it is another run's."""
        return self._read().get(key)

    def set(self, key: str, value: Any, /) -> None:
        """Store a value that JSON can hold."""
        content = {**self._read(), "run": self._run, key: value}
        self._directory.replace(STATE_NAME, json.dumps(content).encode(), STATE_NAME + ".tmp")

    def delete(self, key: str, /) -> None:
        """Forget the value."""
        if self.get(key) is not None:
            self._directory.delete(STATE_NAME)

    def clear(self) -> None:
        """Delete the state, also of other runs, because there is a result now."""
        if self._directory.read(STATE_NAME) is not None:
            self._directory.delete(STATE_NAME)

    def _read(self) -> dict[str, Any]:
        content: Any = None
        with suppress(ValueError):
            content = json.loads(self._directory.read(STATE_NAME) or b"null")
        return content if isinstance(content, dict) and content.get("run") in self._runs else {}
