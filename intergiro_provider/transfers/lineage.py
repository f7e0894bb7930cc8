# SPDX-License-Identifier: Apache-2.0
"""What a pull tells OpenLineage: which list was read, which directory was written, and what its records look like.

Everything is noted while the pull runs, so that nothing is asked of the bank or the store when OpenLineage comes by. Of
the records only the names and the types of their fields are kept, never a value. They are those of the first page with
records, as JSON has them, whatever the files are written in: a field that only later records have is not told.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from intergiro_provider.pull.pages import decoded

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from intergiro_provider.load.target import Loaded
    from intergiro_provider.pull.manifest import Manifest
    from intergiro_provider.pull.pages import Page

_JSON_TYPES: dict[type, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object",
}  # fmt: skip


class Lineage:
    """Notes of one pull.

    :param url: the list's. :param path: the directory of the result.
    """

    def __init__(self, url: str, path: ObjectStoragePath) -> None:
        self._source = source_of(url)
        self._target = target_of(path)
        self._fields: dict[str, str | None] = {}
        self._has_looked = False
        self._manifest: Manifest | None = None

    def look_at(self, page: Page) -> None:
        """Note the fields of a page, if no page before it had records."""
        if page.records and not self._has_looked:
            self._has_looked = True
            with contextlib.suppress(ValueError):  # an integer of thousands of digits
                self._fields = fields_of([decoded(record) for record in page.records])

    def published(self, manifest: Manifest) -> None:
        """Note the result."""
        self._manifest = manifest

    def to_openlineage(self) -> OperatorLineage[Any, Any] | None:
        """The notes as OpenLineage takes them; None where it is not installed."""
        try:
            from airflow.providers.openlineage.extractors import OperatorLineage
            from openlineage.client.event_v2 import InputDataset, OutputDataset
            from openlineage.client.facet_v2 import (
                dataset_version_dataset,
                output_statistics_output_dataset,
                schema_dataset,
            )
        except ImportError:
            return None

        about: dict[str, Any] = {}
        if self._fields:
            fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in self._fields.items()]
            about["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
        source = InputDataset(*self._source, facets=dict(about))
        statistics: dict[str, Any] = {}
        if (manifest := self._manifest) is not None:
            about["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(manifest.pull_id)
            statistics["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=manifest.rows, size=manifest.bytes, fileCount=len(manifest.parts)
            )
        target = OutputDataset(*self._target, facets=about, outputFacets=statistics)
        return OperatorLineage(inputs=[source], outputs=[target])


def of_load(
    directory: tuple[str, str], table: tuple[str, str], manifest: Manifest, loaded: Loaded
) -> OperatorLineage[Any, Any] | None:
    """What a load tells OpenLineage; None where that is not installed.

    :param directory: namespace and name of the pull's directory. :param table: those of the table.
    """
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import InputDataset, OutputDataset
        from openlineage.client.facet_v2 import (
            dataset_version_dataset,
            output_statistics_output_dataset,
            schema_dataset,
        )
    except ImportError:
        return None

    fields = [
        schema_dataset.SchemaDatasetFacetFields(name, kind if isinstance(kind, str) else "json")
        for name, kind in (manifest.schema or {}).items()
    ]
    schema = schema_dataset.SchemaDatasetFacet(fields=fields)
    version = dataset_version_dataset.DatasetVersionDatasetFacet(loaded.pull_id)
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=loaded.inserted + loaded.changed
    )
    return OperatorLineage(
        inputs=[InputDataset(*directory, facets={"version": version})],
        outputs=[OutputDataset(*table, facets={"schema": schema}, outputFacets={"outputStatistics": written})],
    )


def source_of(url: str) -> tuple[str, str]:
    """The namespace and the name of a list: its API's origin, and its path there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")


def target_of(path: ObjectStoragePath) -> tuple[str, str]:
    """The namespace and the name of a directory, as OpenLineage's naming rules have it, and Airflow for assets."""
    if path.protocol in ("", "file", "local"):
        return "file", path.path.rstrip("/") or "/"
    scheme = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}.get(path.protocol, path.protocol)
    bucket = path.bucket.rpartition("@")[2]  # Airflow 2 leaves the connection in it: conn_id@bucket
    return f"{scheme}://{bucket}", path.key.strip("/") or "/"


def fields_of(records: list[Any]) -> dict[str, str | None]:
    """The names of the records' fields, in the order in which they come, and the JSON types of their values.

    None stands for a field that was always null, or of several types.
    """
    seen: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.items() if isinstance(record, dict) else ():
            types = seen.setdefault(name, set())
            if value is not None:
                types.add(_JSON_TYPES[type(value)])
    return {name: _one_of(types) for name, types in seen.items()}


def _one_of(types: set[str]) -> str | None:
    if types == {"integer", "number"}:
        return "number"
    return next(iter(types)) if len(types) == 1 else None
