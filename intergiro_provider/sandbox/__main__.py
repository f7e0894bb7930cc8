# SPDX-License-Identifier: Apache-2.0
"""`python -m intergiro_provider.sandbox`: run the sandbox from a shell."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intergiro_provider.sandbox.settings import Settings, SettingsError, add_flags, from_flags, parse_key


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; every setting has a flag."""
    made = argparse.ArgumentParser(
        prog="python -m intergiro_provider.sandbox",
        description="A loopback server that imitates Intergiro, for demos, tests and DAG authors. It is not the bank.",
        epilog="(?) marks what the bank does not document. All settings can be changed while it runs: "
        "PATCH /_sandbox/settings.",
        allow_abbrev=False,
    )
    made.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (default: 127.0.0.1)")
    made.add_argument("--port", type=int, default=8765, help="port to listen on; 0 selects a free one (default: 8765)")
    made.add_argument(
        "--ready-file", type=Path, help="write url, api_key and pid to this file, as JSON, once the sandbox listens"
    )
    made.add_argument("--verbose", action="store_true", help="log each request's method, path and status to stderr")
    made.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input is closed")
    made.add_argument("--settings", metavar="JSON", help="settings as one JSON object; a flag overrides it")
    add_flags(made.add_argument_group("settings"))
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run until interrupted; return the exit status."""
    flags = parser()
    given = flags.parse_args(arguments)
    try:
        settings = from_flags(given, _object(given.settings))
    except SettingsError as problem:
        flags.error(str(problem))
    try:
        from intergiro_provider.sandbox.server import NotLoopback, Server, listen
    except ImportError as problem:
        print(f"{problem}: install the extra: pip install 'airflow-provider-intergiro[sandbox]'", file=sys.stderr)
        return 1
    try:
        sock = listen(given.host, given.port)
    except NotLoopback as problem:
        flags.error(str(problem))
    except (OSError, OverflowError) as problem:
        print(f"cannot listen on {given.host}, port {given.port}: {problem}", file=sys.stderr)
        return 1
    if given.ready_file is not None:
        if not given.ready_file.parent.is_dir():
            flags.error(f"--ready-file: there is no directory {given.ready_file.parent}")
        given.ready_file.unlink(missing_ok=True)  # of an earlier run
    server = Server(settings, sock, verbose=given.verbose, ready=lambda: ready())
    key = parse_key(settings.api_keys[0])[0]

    def ready() -> None:
        print(banner(server.url, key, settings), flush=True)
        if given.ready_file is not None:
            # Atomic: a program that waits for the file must not read half of it.
            part = given.ready_file.with_name(given.ready_file.name + ".part")
            part.write_text(json.dumps({"url": server.url, "api_key": key, "pid": os.getpid()}) + "\n")
            part.replace(given.ready_file)

    if given.until_stdin_closes:
        threading.Thread(target=_wait_for_stdin, args=(server.stop,), daemon=True).start()
    try:
        server.run_until_stopped()
    except KeyboardInterrupt:
        pass
    return 0


def banner(url: str, key: str, settings: Settings) -> str:
    """Return the text that says where the sandbox listens and which connection to use."""
    host, _, port = url.rpartition(":")
    connection = json.dumps({"conn_type": "intergiro", "host": host, "port": int(port), "password": key})
    return f"""Intergiro sandbox for development, NOT the bank. No data is real, nothing is paid.
  listens on   {url}  (3d: {url}/v3/..., 2d: {url}/v1/...)
  API key      {key}
  session      access token {settings.access_token_life:g} s, session {settings.session_life:g} s, \
{settings.login_limit} logins per {settings.login_window:g} s
  data         {settings.transactions} transactions in each API, over the last {settings.days:g} days
  control      {url}/_sandbox/counters, .../settings, .../faults
Add an Airflow connection to it, either
  airflow connections add intergiro_default --conn-type intergiro --conn-host {host} --conn-port {port} \
--conn-password {key}
or
  export AIRFLOW_CONN_INTERGIRO_DEFAULT='{connection}'
Ctrl-C stops it."""


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as problem:
        raise SettingsError(f"--settings is not JSON: {problem}") from None
    if not isinstance(found, dict):
        raise SettingsError("--settings is not a JSON object")
    return found


def _wait_for_stdin(stop: Callable[[], None]) -> None:
    sys.stdin.buffer.read()
    stop()


if __name__ == "__main__":
    sys.exit(main())
