# SPDX-License-Identifier: Apache-2.0
"""Directives whose content is made from the code: the connection's fields, and the options of a program."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class ConnectionFields(SphinxDirective):
    """The settings in the connection's extra, as the form shows them."""

    def run(self) -> list[nodes.Node]:
        """Return a definition list of them."""
        from intergiro_provider.get_provider_info import get_provider_info

        lines = []
        for name, field in get_provider_info()["connection-types"][0]["conn-fields"].items():
            schema = field["schema"]
            kind = " or ".join(f'"{value}"' for value in schema.get("enum", ())) or schema["type"][0]
            lines += [f"`{name}` ({field['label']}; {kind})", f": {field['description']}".replace("<", "\\<"), ""]
        return self.parse_text_to_nodes("\n".join(lines))


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
    app.add_directive("connection-fields", ConnectionFields)
    app.add_directive("program-help", ProgramHelp)
    return {"parallel_read_safe": True}
