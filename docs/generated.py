# SPDX-License-Identifier: Apache-2.0
"""A directive whose content is made from the code: the options of a program."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class ProgramHelp(SphinxDirective):
    """What a program prints with `--help`; the argument names a function that returns its parser."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return it as it is printed."""
        module, _, function = self.arguments[0].partition(":")
        text = getattr(importlib.import_module(module), function)().format_help()
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("program-help", ProgramHelp)
    return {"parallel_read_safe": True}
