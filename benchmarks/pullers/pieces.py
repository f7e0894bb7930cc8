# SPDX-License-Identifier: Apache-2.0
"""Not a puller: microseconds of CPU that each part of the work for one page of 100 records takes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from urllib.parse import urlencode

from clock import Job

TIMES = 200


def main() -> None:
    """Print one line of JSON: what, and its microseconds, the least of five rounds."""
    job = Job(**json.loads(sys.argv[1]))
    os.environ["AIRFLOW_CONN_INTERGIRO_DEFAULT"] = job.connection

    import requests
    import urllib3

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.pull import pages
    from intergiro_provider.pull.jsonl import to_lines

    hook = IntergiroHook()
    get_page = hook.page_getter("transactions", bytes)
    body = get_page(job.query)
    records = pages.read_page(body).records
    lines = to_lines(records)
    token = {"Authorization": hook.run("accounts").request.headers["Authorization"]}
    session = requests.Session()
    session.headers.update(token)
    pool = urllib3.PoolManager().connection_from_url(job.url)
    target = f"/v3/transactions?{urlencode(job.query)}"
    work: dict[str, Callable[[], object]] = {
        "requests.Session.get": lambda: session.get(job.endpoint, params=job.query).content,
        "IntergiroHook.run": lambda: hook.run("transactions", job.query).content,
        "ours: the request, with authentication and retry rules": lambda: get_page(job.query),
        "urllib3 alone": lambda: pool.urlopen("GET", target, headers=token, retries=False).data,
        "json.loads": lambda: json.loads(body),
        "ours: records, ids and times found with msgspec": lambda: pages.read_page(body),
        "ours: lines": lambda: to_lines(records),
        "ours: SHA-256": lambda: hashlib.sha256(lines),
    }
    best = dict.fromkeys(work, float("inf"))
    for _ in range(5):
        for name, each in work.items():
            began = time.process_time()
            for _ in range(TIMES):
                each()
            best[name] = min(best[name], (time.process_time() - began) / TIMES * 1e6)
    print(json.dumps(best))


if __name__ == "__main__":
    main()
