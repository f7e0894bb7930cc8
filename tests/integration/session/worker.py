# SPDX-License-Identifier: Apache-2.0
"""One process of a fleet: calls an endpoint until its time is up, then prints what happened as JSON.

Run as ``python -m tests.integration.session.worker SECONDS``; the environment says which Airflow and which connection.
"""

from __future__ import annotations

import json
import sys
import time


def main(seconds: float) -> None:
    from intergiro_provider.hooks.intergiro import IntergiroHook

    until = time.monotonic() + seconds
    calls, slowest, slowest_later, errors = 0, 0.0, 0.0, []
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            IntergiroHook().run("accounts", {"limit": 1})
            calls += 1
            if calls > 1:
                slowest_later = max(slowest_later, time.monotonic() - began)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.05)
    print(json.dumps({"calls": calls, "slowest": slowest, "slowest_later": slowest_later, "errors": errors}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
