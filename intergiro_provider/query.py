# SPDX-License-Identifier: Apache-2.0
"""The query string of a request: its values, and the filters of the documented lists.

Each parse of a DAG file imports this module, so it is light.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from intergiro_provider.exceptions import IntergiroValueError

log = logging.getLogger(__name__)

PAGING = ("limit", "starting_after", "ending_before", "sort_by", "sort_type")
"""The names that every list of the bank accepts."""
LIST_FILTERS = ("account_ids", "statuses", "correlation_ids")
FILTERS = ("created_from", "created_to", *LIST_FILTERS)
"""The names that `transactions` accepts, too."""

_KNOWN_LISTS = r"(accounts|cards|individuals|transactions|events/[^/]+|(individuals|guests)/[^/]+/payment_methods)"
_NO_VALUE = ("", "none", "null", "nan", "undefined")


def is_pending(value: Any) -> bool:
    """Return whether an argument has its value only when the task runs: a template, or the output of another task."""
    return "{{" in value or "{%" in value if isinstance(value, str) else hasattr(value, "resolve")


def whole_query(endpoint: str | None, query: Any) -> tuple[str, dict[str, Any]]:
    """Join the query string of an endpoint with `query`.

    :param query: a dict, or None. A name whose value is None is left out. Pending values stay as they are.
    :return: the endpoint without its query string, and the joined query.
    :raises IntergiroValueError: a value cannot be sent or would be lost, or a name is in both.
    """
    if query is not None and not isinstance(query, Mapping):
        raise IntergiroValueError(
            f"`query` must be a dict, not {type(query).__name__}. To take it from another task, pass that task's "
            "`.output`, or set `render_template_as_native_obj=True` on the DAG."
        )
    path, _, own = str(endpoint or "").partition("#")[0].partition("?")
    whole: dict[str, Any] = {}
    for name, value in parse_qsl(own, keep_blank_values=True):
        whole[name] = [*whole[name], value] if name in whole else [value]
    whole = {name: values if len(values) > 1 else values[0] for name, values in whole.items()}
    for name, value in (query or {}).items():
        if value is None:
            continue
        if name in whole:
            raise IntergiroValueError(
                f"`{name}` is given twice, in `query` and in the endpoint. Leave it out of one of them."
            )
        whole[name] = value
    return path, {name: _checked(name, value) for name, value in whole.items()}


def _checked(name: str, value: Any) -> Any:
    if is_pending(value):
        return value
    if isinstance(value, (Mapping, bytes)):
        raise IntergiroValueError(
            f"`{name}` in the query is a {type(value).__name__}. Give text, a number, a boolean or a list."
        )
    if isinstance(value, str) or not isinstance(value, Iterable):
        return _checked_scalar(name, value)
    values = list(value)
    if not values:
        raise IntergiroValueError(
            f"`{name}` in the query is an empty list, which would be no filter at all and return everything. Skip the "
            "task if there is nothing to request, or leave out the name to request everything."
        )
    for item in values:
        if item is None or (isinstance(item, Iterable) and not isinstance(item, str)):
            raise IntergiroValueError(
                f"`{name}` in the query is a list that holds a {type(item).__name__}. Give text or numbers."
            )
    return [_checked_scalar(name, item) for item in values]


def _checked_scalar(name: str, value: Any) -> Any:
    if name in LIST_FILTERS and not is_pending(value):
        _check_filter(name, value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise IntergiroValueError(
                f"`{name}` in the query is {value.isoformat()}, a time without a time zone. Add one."
            )
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, (str, int, float)) else str(value)


def _check_filter(name: str, value: Any) -> None:
    if isinstance(value, float):
        problem = "a number with a fraction or an exponent, which native rendering makes of an id like 12e34. Pass it"
    elif not isinstance(value, str):
        return
    elif value.strip().lower() in _NO_VALUE:
        problem = f"{value!r}: its template found no value. To request everything, leave out the name. Pass a value"
    elif value.lstrip().startswith("["):
        problem = "the text of a list, because a template renders to text. Pass it"
    else:
        return
    raise IntergiroValueError(
        f"`{name}` in the query is {problem} as another task's `.output`, or with "
        "`render_template_as_native_obj=True` on the DAG."
    )


def warn_of_unknown_filters(endpoint: str, names: Iterable[str]) -> None:
    """Log a warning for a name that a documented list does not accept. The bank may ignore it and return everything.

    :param endpoint: with or without version and query. There is no warning for other lists.
    """
    try:
        path = urlsplit(endpoint).path.strip("/")
    except ValueError:  # no valid URL: the request raises the error
        return
    listing = re.sub(r"^v\d+/", "", path)
    if not re.fullmatch(_KNOWN_LISTS, listing):
        return
    for name in names:
        if name not in PAGING and name not in FILTERS:
            _warn_once(listing, name)


@functools.cache
def _warn_once(listing: str, name: str) -> None:
    import difflib

    close = difflib.get_close_matches(name.lower(), (*FILTERS, *PAGING), n=1, cutoff=0.7)
    if close:
        log.warning(
            "`%s` in the query is not a documented filter of %s. Did you mean `%s`? The bank may ignore an unknown "
            "filter, and return more records than you want.", name, listing, close[0],
        )  # fmt: skip
    elif listing == "transactions":
        log.warning(
            "`%s` in the query is not a documented filter of %s (%s). The bank may ignore an unknown filter, and "
            "return more records than you want.", name, listing, ", ".join(FILTERS),
        )  # fmt: skip
