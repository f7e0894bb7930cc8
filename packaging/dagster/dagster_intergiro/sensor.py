# SPDX-License-Identifier: Apache-2.0
"""A sensor that starts runs when a list of the bank has new records."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dagster import RunRequest, SensorDefinition, SensorEvaluationContext, SensorResult, SkipReason

from intergiro_provider.pull.arguments import newest_query
from intergiro_provider.pull.new_records import find_new_records, is_position
from intergiro_provider.pull.pages import iter_pages, read_page

NewRecords = Mapping[str, Any]
"""What is new: the `ids`, the oldest first; whether there are `more` than these; and `created_from` and `created_to`,
with ``created_from ≤ created_at < created_to`` for all of it."""


def build_intergiro_sensor(
    *,
    name: str,
    endpoint: str,
    query: Mapping[str, Any] | None = None,
    run_requests: Callable[[NewRecords], RunRequest | Iterable[RunRequest]] | None = None,
    resource_key: str = "intergiro",
    **arguments: Any,
) -> SensorDefinition:
    """Return a sensor that requests the 100 newest records of a list, and starts a run when there are new ones.

    Its first evaluation only stores the present records. The sensor's cursor holds the records seen so far. So each
    record is reported once, and none is lost while the sensor is off, as long as it is among the 100 newest.

    :param endpoint: the list, such as ``transactions``.
    :param query: its filters, such as ``{"statuses": ["completed"]}``.
    :param run_requests: makes run requests of what is new (`ids`, `more`, `created_from`, `created_to`); None: one run
        of the target, with these bounds as tags.
    :param resource_key: key of the :class:`.IntergiroResource`.
    :param arguments: of ``SensorDefinition``: `target`, `job`, `minimum_interval_seconds`, `default_status`, …
    """
    asked = newest_query(query)

    def evaluate(context: SensorEvaluationContext) -> SensorResult:
        client = getattr(context.resources, resource_key).get_client()
        page = next(iter_pages(client.page_getter(endpoint, read_page), asked))
        seen = json.loads(context.cursor) if context.cursor else None
        position, new = find_new_records(page, seen if is_position(seen) else None)
        if new is None:
            reason = SkipReason(f"{endpoint} has nothing new.")
            return SensorResult(skip_reason=reason, cursor=json.dumps(position))
        requests = (run_requests or functools.partial(_one_run, endpoint))(new)
        return SensorResult(
            run_requests=[requests] if isinstance(requests, RunRequest) else list(requests),
            cursor=json.dumps(position),
        )

    return SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        required_resource_keys={resource_key},
        description=f"Starts when the list `{endpoint}` of the Intergiro API has new records.",
        **arguments,
    )


def _one_run(endpoint: str, new: NewRecords) -> RunRequest:
    bounds = {f"intergiro/{name}": new[name] for name in ("created_from", "created_to") if new[name] is not None}
    key = hashlib.sha256(json.dumps([endpoint, new["ids"]]).encode()).hexdigest()
    return RunRequest(run_key=key, tags={"intergiro/endpoint": endpoint, **bounds})
