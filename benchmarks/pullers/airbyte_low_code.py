# SPDX-License-Identifier: Apache-2.0
"""A low-code source of airbyte-cdk, whose records are written as JSON lines with the fast JSON that it brings."""

from __future__ import annotations

import logging
from collections.abc import Callable

from clock import Job, run


def prepare(job: Job) -> Callable[[], None]:
    """Make the source and what is asked of it."""
    import orjson
    from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer, Type
    from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

    logging.disable(logging.WARNING)
    schema = {"type": "object", "additionalProperties": True, "properties": {"id": {"type": "string"}}}
    catalog = ConfiguredAirbyteCatalogSerializer.load(
        {
            "streams": [
                {
                    "stream": {
                        "name": "transactions",
                        "json_schema": schema,
                        "supported_sync_modes": ["full_refresh"],
                    },
                    "sync_mode": "full_refresh",
                    "destination_sync_mode": "overwrite",
                }
            ]
        }
    )
    manifest = {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["transactions"]},
        "streams": [
            {
                "type": "DeclarativeStream",
                "name": "transactions",
                "primary_key": "id",
                "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
                "retriever": {
                    "type": "SimpleRetriever",
                    "requester": {
                        "type": "HttpRequester",
                        "url_base": job.url,
                        "path": "/v3/transactions",
                        "http_method": "GET",
                        "request_headers": job.headers,
                        "request_parameters": {name: str(value) for name, value in job.query.items()},
                    },
                    "record_selector": {
                        "type": "RecordSelector",
                        "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
                    },
                    "paginator": {
                        "type": "DefaultPaginator",
                        "page_token_option": {
                            "type": "RequestOption",
                            "inject_into": "request_parameter",
                            "field_name": "starting_after",
                        },
                        "pagination_strategy": {
                            "type": "CursorPagination",
                            "cursor_value": "{{ last_record['id'] }}",
                            "stop_condition": "{{ not response['has_more'] }}",
                        },
                    },
                },
            }
        ],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    }
    source = ConcurrentDeclarativeSource(source_config=manifest, config={}, catalog=catalog, state=[])

    def pull() -> None:
        with job.file().open("wb") as out:
            for message in source.read(logging.getLogger("airbyte"), {}, catalog, []):
                if message.type is Type.RECORD:
                    out.write(orjson.dumps(message.record.data) + b"\n")

    return pull


if __name__ == "__main__":
    run(prepare)
