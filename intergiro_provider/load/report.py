# SPDX-License-Identifier: Apache-2.0
"""The report of a reconciliation: Markdown for the log, without balances, and a complete HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from intergiro_provider.load.comparison import Line

_LOGGED = 20
_CELL, _GAP, _LEFT, _TOP = 22, 3, 300, 82
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b2733}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #dde3e9;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr.off td{background:#fdecea}
.result{font-size:1.1rem;padding:.6rem .9rem;border-radius:.4rem;background:#e6f4ea}.result.off{background:#fdecea}
svg text{font:12px system-ui,sans-serif;fill:#1b2733}svg{max-width:100%;height:auto}
"""


def markdown(lines: Sequence[Line], transactions: str, accounts: str) -> str:
    """Return the result without balances: how many agree, and which do not."""
    differing = [line for line in lines if not line.agrees]
    if not lines:
        return (
            f"Reconciliation of {accounts} with {transactions}: nothing to compare yet. It takes two loads of the "
            "accounts with history=True."
        )
    text = f"Reconciliation of {accounts} with {transactions}: {len(lines) - len(differing)} of {len(lines)} agree."
    if not differing:
        return text
    rows = "\n".join(
        f"| {line.account_id} | {line.currency} | {line.day} | {line.difference:+d} |" for line in differing[:_LOGGED]
    )
    more = f"\n… and {len(differing) - _LOGGED} more" if len(differing) > _LOGGED else ""
    return f"{text}\n\n| account | currency | day | difference, minor units |\n| --- | --- | --- | ---: |\n{rows}{more}"


def html(lines: Sequence[Line], exponents: Mapping[str, int], transactions: str, accounts: str) -> str:
    """Return a self-contained HTML page."""
    differing = [line for line in lines if not line.agrees]
    result = (
        f"{len(differing)} of {len(lines)} balances do not agree."
        if differing
        else f"All {len(lines)} balances agree."
        if lines
        else "Nothing to compare yet."
    )
    title = f"{escape(accounts)} and {escape(transactions)}"
    span = ""
    if lines:
        since, until = min(line.since for line in lines), max(line.until for line in lines)
        span = f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Reconciliation</title>'
        f"<style>{_STYLE}</style></head><body><h1>Reconciliation: {title}</h1><p>{span}</p>"
        f'<p class="result{" off" if differing else ""}">{result}</p>'
        f"{_section('Differences', differing, exponents) if differing else ''}"
        f"<h2>Accounts by day</h2>{_plot(lines, exponents)}"
        f"{_section('All balances', lines, exponents)}</body></html>\n"
    )


def decimal(amount: int, exponent: int) -> str:
    """Return minor units as a decimal number, with groups of three digits."""
    whole, rest = divmod(abs(amount), 10**exponent)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:,}" + (f".{rest:0{exponent}d}" if exponent else "")


def _section(title: str, lines: Sequence[Line], exponents: Mapping[str, int]) -> str:
    heads = "".join(f"<th>{name}</th>" for name in ("Day", "Account", "Currency"))
    heads += "".join(f'<th class="n">{name}</th>' for name in ("Opening", "Booked", "Pending", "Closing", "Difference"))
    body = ""
    for line in lines:
        exponent = exponents.get(line.currency, 0)
        amounts = (line.opening, line.booked, line.pending, line.closing, line.difference)
        body += (
            f"<tr{'' if line.agrees else ' class=off'}><td>{line.day}</td><td>{escape(line.account_id)}</td>"
            f"<td>{escape(line.currency)}</td>"
            + "".join(f'<td class="n">{decimal(amount, exponent)}</td>' for amount in amounts)
            + "</tr>"
        )
    return f"<h2>{title}</h2><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _plot(lines: Sequence[Line], exponents: Mapping[str, int]) -> str:
    """Return a chart with a cell for each account and window: green if both agree, red if not."""
    windows = sorted({(line.until, line.day) for line in lines})
    names = sorted({(line.account_id, line.currency) for line in lines})
    step = _CELL + _GAP
    drawn = ""
    for column, (_, day) in enumerate(windows):
        x = _LEFT + column * step + _CELL / 2 + 4
        drawn += f'<text x="{x}" y="{_TOP - 8}" transform="rotate(-60 {x} {_TOP - 8})">{day}</text>'
    for row, (account, currency) in enumerate(names):
        y = _TOP + row * step
        drawn += f'<text x="{_LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(account)} {escape(currency)}</text>'
    for line in lines:
        x = _LEFT + windows.index((line.until, line.day)) * step
        y = _TOP + names.index((line.account_id, line.currency)) * step
        shown = decimal(line.difference, exponents.get(line.currency, 0))
        drawn += (
            f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" rx="3" fill="{_colour(line)}"><title>'
            f"{escape(line.account_id)} {escape(line.currency)}, {line.day}: difference {shown}</title></rect>"
        )
    width, height = _LEFT + len(windows) * step + 60, _TOP + len(names) * step + 10
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{drawn}</svg>'


def _colour(line: Line) -> str:
    if not line.agrees:
        return "#d93025"
    return "#34a853" if line.booked or line.pending else "#b7dfc2"
