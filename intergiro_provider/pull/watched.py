# SPDX-License-Identifier: Apache-2.0
"""Parts of JSON lines that remember what type their records have, also where an earlier try has written them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import msgspec

from intergiro_provider.pull import lenient
from intergiro_provider.pull.files import Compressor, JsonLinesPart, PartWriter, Stored
from intergiro_provider.pull.lines import read_lines
from intergiro_provider.pull.schema import Shape, Type, unite_all

if TYPE_CHECKING:
    from typing import BinaryIO

    from intergiro_provider.pull.directory import FileSink
    from intergiro_provider.pull.manifest import Part


class Place(Protocol):
    """Where parts are staged: the pull's :class:`~.target.Target`."""

    pull_id: str

    def stage(self, part: str) -> FileSink:
        """Begin a part."""

    def reopen(self, part: str) -> BinaryIO:
        """Read a part that is staged."""


class WatchedLines:
    """JSON lines, for one pull: the format of its parts, and the type of the records in them.

    :param make_compressor: makes what compresses one part.
    :param moments: whether ISO 8601 in fields named ``…_at`` is a timestamp.
    """

    def __init__(self, make_compressor: Callable[[], Compressor], moments: bool = True) -> None:
        self._make_compressor = make_compressor
        self._moments = moments
        self._types: dict[str, Type] = {}  # by a part's digest

    def open(self, sink: FileSink) -> PartWriter:
        """Begin a part."""
        return _WatchedPart(sink, self._make_compressor(), Shape(self._moments), self._types, self.storable)

    def type_of(self, parts: Sequence[Part], place: Place, check: Callable[[], None]) -> Type:
        """Return the narrowest type that holds every record of these parts.

        :param check: raises if the pull was told to stop; called now and then.
        """
        return unite_all(self._type_of(part, place, check) for part in parts)

    def _type_of(self, part: Part, place: Place, check: Callable[[], None]) -> Type:
        known = self._types.get(part.sha256)
        if known is None:  # an earlier try has written it
            shape = Shape(self._moments)
            for block in self.blocks([part], place):
                check()
                see(shape, [msgspec.Raw(line) for line in block.split(b"\n")[:-1]])
            known = self._types[part.sha256] = shape.type
        return known

    def blocks(self, parts: Sequence[Part], place: Place) -> Iterator[bytes]:
        """Yield the lines of these parts in blocks of whole lines."""
        for part in parts:
            with closing(place.reopen(part.path)) as file:
                yield from read_lines(file, part.path)

    def storable(self, records: Sequence[msgspec.Raw], seen: Sequence[msgspec.Raw]) -> Sequence[msgspec.Raw]:
        """Return what to store: the records byte for byte, or as they were :func:`see`-n."""
        return records


def see(shape: Shape, records: Sequence[msgspec.Raw]) -> Sequence[msgspec.Raw]:
    """Note what records hold; return them without halves of surrogate pairs."""
    try:
        shape.see(records)
    except msgspec.DecodeError:
        records = [msgspec.Raw(lenient.spell_halves(bytes(record))) for record in records]
        shape.see(records)
    return records


class _WatchedPart(JsonLinesPart):
    def __init__(
        self,
        sink: FileSink,
        compressor: Compressor,
        shape: Shape,
        types: dict[str, Type],
        storable: Callable[[Sequence[msgspec.Raw], Sequence[msgspec.Raw]], Sequence[msgspec.Raw]],
    ) -> None:
        super().__init__(sink, compressor)
        self._shape = shape
        self._types = types
        self._storable = storable

    def write(self, records: Sequence[msgspec.Raw]) -> None:
        if records:
            super().write(self._storable(records, see(self._shape, records)))

    def finish(self) -> Stored:
        stored = super().finish()
        self._types[stored.sha256] = self._shape.type
        return stored
