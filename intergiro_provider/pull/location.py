# SPDX-License-Identifier: Apache-2.0
"""Where an operator's `path` leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.query import checked_location

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]"),
    **dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google"),
    **dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure"),
}
"""What brings a file system, and the extra that it needs."""


def object_storage_path(given: object) -> ObjectStoragePath:
    """Return the path for an operator's `path`.

    :raises IntergiroValueError: it cannot be one.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    location = checked_location(given)
    try:
        path = ObjectStoragePath(location)
        _ = path.fs
    except (ImportError, ValueError) as error:
        scheme = location.partition("://")[0]
        # What universal-pathlib 0.3 says to Airflow 2.11.0 and 3.0, which allow it and do not work with it.
        package = (
            "universal-pathlib<0.3, which this Airflow needs"
            if isinstance(error, TypeError)
            else _PACKAGES.get(scheme, "the Airflow provider that brings it")
        )
        raise IntergiroValueError(
            f"`path`: there is no file system for {scheme}:// here ({error}). Install {package}"
        ) from error
    return path
