# SPDX-License-Identifier: Apache-2.0
"""Not a puller: seconds of CPU that authentication takes of one request, beside those of the request itself."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from clock import Job

REQUESTS = 300


def main() -> None:
    """Print one line of JSON: microseconds of `request` and `authentication`, each the least of five rounds."""
    job = Job(**json.loads(sys.argv[1]))
    os.environ["AIRFLOW_CONN_INTERGIRO_DEFAULT"] = job.connection

    import requests

    from intergiro_provider.hooks.intergiro import IntergiroHook

    ours: Any = IntergiroHook().get_conn()
    answer = ours.get("accounts", params={"limit": 1})
    plain = requests.Session()
    plain.headers.update(ours.headers)
    plain.headers["Authorization"] = answer.request.headers["Authorization"]
    plain.trust_env = False
    request = plain.prepare_request(requests.Request("GET", answer.url))

    def authenticate() -> None:
        ours._bearer.exchange(request, lambda request: answer)

    url = answer.url or ""
    print(
        json.dumps(
            {
                "request": _microseconds(lambda: plain.get(url)),
                "authentication": _microseconds(authenticate),
            }
        )
    )


def _microseconds(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(REQUESTS):
            work()
        spent.append(time.process_time() - began)
    return min(spent) / REQUESTS * 1e6


if __name__ == "__main__":
    main()
