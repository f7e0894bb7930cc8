# SPDX-License-Identifier: Apache-2.0
"""OpenLineage facets of a pull and of a load: the list, the directory, the table, and the fields of the records.

A pull collects them while it runs, so OpenLineage causes no request to the bank or the store. Only the names and types
of the records' fields are collected, and no value. They are the JSON types of the first page with records, whatever the
file format. A field that appears only in later records is missing.
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
    """The lineage of one pull.

    :param url: the URL of the list.
    :param path: the directory of the result.
    """

    def __init__(self, url: str, path: ObjectStoragePath) -> None:
        self._source = source_of(url)
        self._target = target_of(path)
        self._fields: dict[str, str | None] = {}
        self._has_fields = False
        self._manifest: Manifest | None = None

    def add(self, page: Page) -> None:
        """Take the fields from a page, if it is the first one with records."""
        if page.records and not self._has_fields:
            self._has_fields = True
            with contextlib.suppress(ValueError):  # an integer of thousands of digits: Python does not convert it
                self._fields = fields_of([decoded(record) for record in page.records])

    def set_manifest(self, manifest: Manifest) -> None:
        """Set the result."""
        self._manifest = manifest

    def to_openlineage(self) -> OperatorLineage[Any, Any] | None:
        """Return the lineage; None if OpenLineage is not installed."""
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

        facets: dict[str, Any] = {}
        if self._fields:
            fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in self._fields.items()]
            facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
        source = InputDataset(*self._source, facets=dict(facets))
        statistics: dict[str, Any] = {}
        if (manifest := self._manifest) is not None:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(manifest.pull_id)
            statistics["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=manifest.rows, size=manifest.bytes, fileCount=len(manifest.parts)
            )
        target = OutputDataset(*self._target, facets=facets, outputFacets=statistics)
        return OperatorLineage(inputs=[source], outputs=[target])


def of_load(
    directory: tuple[str, str], table: tuple[str, str], manifest: Manifest, loaded: Loaded
) -> OperatorLineage[Any, Any] | None:
    """Return the lineage of a load; None if OpenLineage is not installed.

    :param directory: the namespace and the name of the pull's directory.
    :param table: the namespace and the name of the table.
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
    """Return the namespace and the name of a list: the origin of the API, and the path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")


def target_of(path: ObjectStoragePath) -> tuple[str, str]:
    """Return the namespace and the name of a directory, as in OpenLineage's naming rules and Airflow's assets."""
    if path.protocol in ("", "file", "local"):
        return "file", path.path.rstrip("/") or "/"
    scheme = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}.get(path.protocol, path.protocol)
    bucket = path.bucket.rpartition("@")[2]  # Airflow 2 leaves the connection in the bucket: conn_id@bucket
    return f"{scheme}://{bucket}", path.key.strip("/") or "/"


def fields_of(records: list[Any]) -> dict[str, str | None]:
    """Return the names of the records' fields, in the order in which they appear, and their JSON types.

    The type is None if a field is always null, or has values of several types.
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
