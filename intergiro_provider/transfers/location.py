# SPDX-License-Identifier: Apache-2.0
"""Where an operator's `path` leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


def object_storage_path(given: object) -> ObjectStoragePath:
    """Return the path for an operator's `path`.

    :raises IntergiroValueError: it cannot be one.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from intergiro_provider.exceptions import IntergiroValueError

    location = str(given).strip()
    if "://" not in location and not location.startswith("/"):
        raise IntergiroValueError(
            f"`path` has to be a URL such as s3://conn_id@bucket/directory, or an absolute path, not {given!r}"
        )
    try:
        path = ObjectStoragePath(location)
        _ = path.fs
    except (ImportError, ValueError) as error:
        # What universal-pathlib 0.3 says to Airflow 2.11.0 and 3.0, which allow it and do not work with it.
        remedy = (
            "install universal-pathlib<0.3, which this Airflow needs"
            if isinstance(error, TypeError)
            else "install the Airflow provider that brings it"
        )
        raise IntergiroValueError(
            f"`path`: there is no file system for {location.partition('://')[0]}:// here ({error}); {remedy}"
        ) from error
    return path
