# SPDX-License-Identifier: Apache-2.0
"""Turn an operator's `path` into an ObjectStoragePath."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.arguments import checked_location

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]"),
    **dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google"),
    **dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure"),
}
"""The package that contains a file system, with its extra."""


def object_storage_path(given: object) -> ObjectStoragePath:
    """Return the ObjectStoragePath for an operator's `path`.

    :raises IntergiroValueError: the path is invalid, or its file system is not installed.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    location = checked_location(given)
    try:
        path = ObjectStoragePath(location)
        _ = path.fs
    except (ImportError, ValueError) as error:
        scheme = location.partition("://")[0]
        # Airflow 2.11.0 and 3.0 allow universal-pathlib 0.3, but raise a TypeError with it.
        package = (
            "universal-pathlib<0.3, which this Airflow needs"
            if isinstance(error, TypeError)
            else _PACKAGES.get(scheme, "the Airflow provider that contains it")
        )
        raise IntergiroValueError(
            f"`path`: no file system for {scheme}:// is installed ({error}). Install {package}."
        ) from error
    return path
