# SPDX-License-Identifier: Apache-2.0
"""One ``requests.Session`` in a loop, each body decoded with ``json.loads``; what is written is the body as it came."""

from __future__ import annotations

import json
from collections.abc import Callable

import requests
from clock import Job, run


def prepare(job: Job) -> Callable[[], None]:
    """Open the session."""
    session = requests.Session()
    session.headers.update(job.headers)

    def pull() -> None:
        query = job.query
        with job.file().open("wb") as out:
            while True:
                response = session.get(job.endpoint, params=query)
                response.raise_for_status()
                page = json.loads(response.content)
                out.write(response.content + b"\n")
                if not page["has_more"]:
                    return
                query["starting_after"] = page["data"][-1]["id"]

    return pull


if __name__ == "__main__":
    run(prepare)
