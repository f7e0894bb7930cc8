# SPDX-License-Identifier: Apache-2.0
"""The formats in which a pull stores its records: JSON lines and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.arguments import check_format
from intergiro_provider.pull.jsonl import COMPRESSORS, JsonLines, PartWriter

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import FileSink
    from intergiro_provider.pull.manifest import Part
    from intergiro_provider.pull.schema import Type
    from intergiro_provider.pull.target import Target


class Assemble(Protocol):
    """Makes the parts to publish from the staged ones."""

    def __call__(
        self, staged: Sequence[Part], target: Target, part_bytes: int, check: Callable[[], None], /
    ) -> list[Part]:
        """Write the parts and return them.

        :param staged: the parts that the windows wrote, in the order of the list.
        :param part_bytes: the size at which a part ends, before compression.
        :param check: called now and then; raises if the pull was told to stop.
        """


class Format(NamedTuple):
    """A way to store the records of one pull.

    :param suffix: the end of the file names of the parts that the windows write.
    :param open: begins such a part.
    :param type_of: returns the type that holds every record of finished parts.
    :param assemble: called when all records are staged; None: the staged parts are published as they are.
    """

    suffix: str
    open: Callable[[FileSink], PartWriter]
    type_of: Callable[[Sequence[Part], Target, Callable[[], None]], Type]
    assemble: Assemble | None = None


def get_format(file_format: str, compression: str | None, parquet_timestamps: str = "typed") -> Format:
    """Return the format for these arguments of the operator.

    :raises IntergiroValueError: there is no such format, or its package is not installed.
    """
    check_format(file_format, compression, parquet_timestamps)
    if file_format == "parquet":
        return _parquet(compression, parquet_timestamps)
    suffix, make_compressor = COMPRESSORS[compression]
    make_compressor()  # fails before the first request if a package is missing
    lines = JsonLines(make_compressor)
    return Format(".jsonl" + suffix, lines.open, lines.type_of)


def _parquet(compression: str | None, timestamps: str) -> Format:
    try:
        from intergiro_provider.pull.parquet import STAGED_SUFFIX, Parquet
    except ImportError as error:
        raise IntergiroValueError(
            "`file_format`: 'parquet' needs the package pyarrow: pip install 'airflow-provider-intergiro[parquet]', or "
            f"use 'jsonl' ({error})"
        ) from error
    parquet = Parquet(compression, timestamps=timestamps == "typed")
    return Format(STAGED_SUFFIX, parquet.open, parquet.type_of, parquet.assemble)
