# SPDX-License-Identifier: Apache-2.0
"""A tap made with singer-sdk; its messages, records among them, go to a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from clock import Job, run


def prepare(job: Job) -> Callable[[], None]:
    """Make the tap."""
    import logging

    from singer_sdk import RESTStream, Tap
    from singer_sdk import typing as th
    from singer_sdk.pagination import BaseAPIPaginator

    logging.disable(logging.INFO)

    class LastId(BaseAPIPaginator):
        def get_next(self, response: Any) -> str | None:
            page = response.json()
            return page["data"][-1]["id"] if page["has_more"] else None

    class Transactions(RESTStream):
        name = "transactions"
        url_base = job.url
        path = "/v3/transactions"
        primary_keys = ("id",)
        records_jsonpath = "$.data[*]"
        schema = th.PropertiesList(
            *(th.Property(name, th.StringType) for name in ("id", "type", "currency", "status", "account_id")),
            th.Property("amount", th.IntegerType),
            th.Property("created_at", th.DateTimeType),
            additional_properties=True,
        ).to_dict()

        @property
        def http_headers(self) -> dict[str, str]:
            return job.headers

        def get_new_paginator(self) -> LastId:
            return LastId(None)

        def get_url_params(self, context: Any, next_page_token: str | None) -> dict[str, Any]:
            return job.query if next_page_token is None else {**job.query, "starting_after": next_page_token}

    class BankTap(Tap):
        name = "tap-bank"
        config_jsonschema = th.PropertiesList().to_dict()

        def discover_streams(self) -> list[Any]:
            return [Transactions(self)]

    tap = BankTap(config={}, catalog=None)
    tap.catalog  # noqa: B018 - made at the first look

    def pull() -> None:
        with job.file().open("w") as out:
            saved = os.dup(1)
            os.dup2(out.fileno(), 1)
            try:
                with contextlib.redirect_stdout(out):
                    tap.sync_all()
                sys.stdout.flush()
            finally:
                os.dup2(saved, 1)

    return pull


if __name__ == "__main__":
    run(prepare)
