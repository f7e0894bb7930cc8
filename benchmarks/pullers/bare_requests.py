# SPDX-License-Identifier: Apache-2.0
"""One ``requests.Session`` in a loop: bodies written as they came, their cursor found without decoding."""

from __future__ import annotations

from collections.abc import Callable

import requests
from clock import Job, last_id, run


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
                out.write(response.content + b"\n")
                if (cursor := last_id(response.content)) is None:
                    return
                query["starting_after"] = cursor

    return pull


if __name__ == "__main__":
    run(prepare)
