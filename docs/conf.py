# SPDX-License-Identifier: Apache-2.0
"""How the documentation is built: `make docs`. The pages are Markdown; the reference comes from docstrings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Airflow writes a configuration file into its home when it is imported.
os.environ.setdefault("AIRFLOW_HOME", str(Path(__file__).parents[1] / "build" / "docs-airflow"))
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")

from sphinx.util import inspect
from sphinx.util.inspect import stringify_signature

from intergiro_provider import __version__

project = "airflow-provider-intergiro"
author = "the authors of airflow-provider-intergiro"
copyright = author  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
nitpicky = False
language = "en_GB"
smartquotes = False

html_theme = "furo"
html_title = "Intergiro for Airflow"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"


def _signature_of_init(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """Show what a class takes, also where a `__new__` in between hides it."""
    if what != "class" or issubclass(obj, BaseException):
        return None
    return stringify_signature(inspect.signature(obj.__init__, bound_method=True), show_annotation=False), None


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", _signature_of_init)
