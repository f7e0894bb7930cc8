# SPDX-License-Identifier: Apache-2.0
"""One process of a fleet: calls an endpoint until it is stopped."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intergiro_provider.hooks.intergiro import IntergiroHook


@dataclass(frozen=True)
class Work:
    """The progress of a worker.

    :param slowest: the duration of the slowest call after the first, in seconds.
    """

    calls: int = 0
    slowest: float = 0.0
    errors: tuple[str, ...] = ()


def work(environment: dict[str, str], locks: Path, pipe: Any) -> Work:
    """Send requests until the message "end" arrives. Report the progress for every other message.

    :param environment: environment variables with the connections.
    :param locks: the lock directory, which processes of one host share.
    """
    os.environ.update(environment)
    tempfile.tempdir = str(locks)
    done = Work()
    while True:
        if pipe.poll(0.05):
            if pipe.recv() == "end":
                return done
            pipe.send(done)
        began = time.monotonic()
        try:
            IntergiroHook().run("accounts", {"limit": 1})
        except Exception as error:
            done = replace(done, errors=(*done.errors, f"{type(error).__name__}: {error}"))
        else:
            slowest = max(done.slowest, time.monotonic() - began) if done.calls else 0.0
            done = replace(done, calls=done.calls + 1, slowest=slowest)
