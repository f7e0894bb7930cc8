# SPDX-License-Identifier: Apache-2.0
"""Following a list's cursor from page to page, without ever looping and without touching a record's bytes.

A page is ``{"data": [...], "has_more": true|false}``, or a plain array, which is a list of one page. Records stay
:class:`msgspec.Raw`, slices of the answer, so unknown fields, big integers, escapes and the order of keys survive.
Beside them only ``id`` and ``created_at`` are decoded: the first moves the cursor, the second decides about bounds.

A list that does not behave (a cursor that stands still or goes round in circles, a record twice, ``has_more``
with no data, an answer that is no page) raises :class:`IntergiroResponseError`, which says on which page, and
never quotes the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from intergiro_provider.exceptions import IntergiroResponseError
from intergiro_provider.pull import lenient
from intergiro_provider.pull.query import page_query

RecordId = str | int
Fetch = Callable[[dict[str, Any]], bytes]


class Page(NamedTuple):
    """One page of a list.

    :param records: each record's bytes as the bank sent them.
    :param created_at: beside each record its ``created_at``: a datetime where it reads as one, else whatever
        it is, else None.
    :param first_id: id of the first record; None if the page is empty or its records have no ids.
    :param last_id: id of the last record, where the next page starts.
    :param has_more: whether the bank has a next page.
    """

    records: list[msgspec.Raw]
    created_at: list[Any]
    first_id: RecordId | None
    last_id: RecordId | None
    has_more: bool


def iter_pages(fetch: Fetch, query: Mapping[str, Any] | None = None) -> Iterator[Page]:
    """Yield a list's pages, in the bank's order, one in memory at a time.

    :param fetch: takes a query, makes the request and returns the body of the answer.
    :param query: the query of the first page. ``limit`` is 100 if absent, and left out of the query if None;
        ``starting_after`` begins in the middle of the list.
    :raises IntergiroValueError: at once, before any request, for a ``limit`` or a cursor that cannot work.
    :raises IntergiroResponseError: while iterating, for a page that breaks the rules; its records are not
        yielded.
    """
    return _follow(fetch, page_query(query))


def _follow(fetch: Fetch, query: dict[str, Any]) -> Iterator[Page]:
    cursor: Any = query.get("starting_after")
    former: set[RecordId] = {cursor} if cursor is not None else set()
    circle = _CircleDetector()
    number = 0
    while True:
        number += 1
        where = f"page {number}" + (f" (starting after {cursor!r})" if cursor is not None else "")
        page, ids = _read(fetch(dict(query)), where)
        former = _refuse_repetition(ids, former, where)
        if page.has_more:
            cursor = _next_cursor(page, circle, where)
            query["starting_after"] = cursor
        yield page
        if not page.has_more:
            return


def _refuse_repetition(ids: list[RecordId], former: set[RecordId], where: str) -> set[RecordId]:
    """Compare a page's ids with each other and with the page before; return them for the next comparison."""
    here = set(ids)
    if len(here) != len(ids):
        twice = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise IntergiroResponseError(f"{where} of the list holds the record {twice!r} twice")
    if not here.isdisjoint(former):
        again = next(i for i in ids if i in former)
        raise IntergiroResponseError(
            f"{where} of the list repeats the record {again!r} of the page before: the list changed its "
            "order while it "
            "was read (sort by `created_at`, which does not change), or the bank's cursor is broken"
        )
    return here


def _next_cursor(page: Page, circle: _CircleDetector, where: str) -> RecordId:
    if not page.records:
        raise IntergiroResponseError(f"{where} of the list says `has_more` but holds no data")
    last = page.last_id
    if last is None or last == "":
        raise IntergiroResponseError(
            f"{where} of the list says `has_more`, but its last record has no `id` to go on from"
        )
    if circle.closes(last):
        raise IntergiroResponseError(
            f"{where} of the list ends at the record {last!r}, as an earlier page did: the cursor does not move on"
        )
    return last


class _CircleDetector:
    """Notices that a sequence repeats itself, in constant memory (Brent's algorithm).

    It keeps one earlier value, and moves it up whenever the number of steps since then has doubled: a circle
    of any length, entered at any time, is noticed within a few rounds.
    """

    def __init__(self) -> None:
        self._kept: RecordId | None = None
        self._steps = 0
        self._next_move = 1

    def closes(self, value: RecordId) -> bool:
        """Take the next value; True if it is the one that is kept."""
        if value == self._kept:
            return True
        self._steps += 1
        if self._steps == self._next_move:
            self._kept, self._steps, self._next_move = value, 0, self._next_move * 2
        return False


class _Head(msgspec.Struct, gc=False):
    id: RecordId | None = None
    created_at: datetime | None = None


class _Envelope(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    has_more: bool


class _HeadsEnvelope(msgspec.Struct, gc=False):
    data: list[_Head]


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_envelope_heads = msgspec.json.Decoder(_HeadsEnvelope).decode
_decode_array_heads = msgspec.json.Decoder(list[_Head]).decode
_decode_any = msgspec.json.Decoder().decode


def _read(body: bytes, where: str) -> tuple[Page, list[RecordId]]:
    """Read one answer; return the page and the ids that its records have.

    ``raise … from None`` throughout: a decoder's own exception can carry the answer, which is the user's
    data.
    """
    in_envelope = body.lstrip()[:1] == b"{"
    try:
        if not body.isascii():
            body.decode()  # msgspec passes over strings that it does not decode, and so over broken UTF-8
        try:
            if in_envelope:
                envelope = _decode_envelope(body)
                records, has_more = envelope.data, envelope.has_more
            else:
                records, has_more = _decode_array(body), False
            ids, created_at = _heads(body, in_envelope, records)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            records, more = lenient.split(body)
            has_more = bool(more)
            ids, created_at = _odd_heads(records)
    except msgspec.ValidationError:
        raise IntergiroResponseError(
            f"{where} of the list is JSON, but neither an array nor "
            f"{{data: [...], has_more: true or false}}: "
            "is this the endpoint of a list?"
        ) from None
    except (ValueError, RecursionError):
        raise IntergiroResponseError(f"{where} of the list is not JSON, or was cut off ({len(body)} bytes)") from None

    first, last = (ids[0], ids[-1]) if ids else (None, None)
    page = Page(records=records, created_at=created_at, first_id=first, last_id=last, has_more=has_more)
    return page, [i for i in ids if i is not None]


def _heads(body: bytes, in_envelope: bool, records: list[msgspec.Raw]) -> tuple[list[RecordId | None], list[Any]]:
    try:
        heads = _decode_envelope_heads(body).data if in_envelope else _decode_array_heads(body)
    except msgspec.ValidationError:
        return _odd_heads(records)
    return [head.id for head in heads], [head.created_at for head in heads]


def _odd_heads(records: list[msgspec.Raw]) -> tuple[list[RecordId | None], list[Any]]:
    heads = [_odd_head(record) for record in records]
    return [head[0] for head in heads], [head[1] for head in heads]


def decoded(record: msgspec.Raw) -> Any:
    """One record in plain types."""
    try:
        return _decode_any(record)
    except msgspec.DecodeError:
        return lenient.decode(bytes(record))


def record_id(record: msgspec.Raw) -> RecordId | None:
    """The id of one record; None if it has none that could be one."""
    return _odd_head(record)[0]


def _odd_head(record: msgspec.Raw) -> tuple[RecordId | None, Any]:
    """The head of a record on a page where some record is no object, or has an id or a time of an unusual form."""
    value = decoded(record)
    if not isinstance(value, dict):
        return None, None
    identity = value.get("id")
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        identity = None
    return identity, _moment(value.get("created_at"))


def _moment(value: Any) -> Any:
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return value
