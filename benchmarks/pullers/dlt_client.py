# SPDX-License-Identifier: Apache-2.0
"""dlt's RESTClient in a loop; records written as JSON lines with the fast JSON that dlt brings."""

from __future__ import annotations

from collections.abc import Callable

from clock import Job, run


def prepare(job: Job) -> Callable[[], None]:
    """Make the client."""
    from dlt.common import json
    from dlt.sources.helpers.rest_client import RESTClient
    from paginator import LastId

    client = RESTClient(base_url=job.url, headers=job.headers, data_selector="data")

    def pull() -> None:
        with job.file().open("wb") as out:
            for page in client.paginate("/v3/transactions", params=job.query, paginator=LastId()):
                out.writelines(json.dumpb(record) + b"\n" for record in page)

    return pull


if __name__ == "__main__":
    run(prepare)
