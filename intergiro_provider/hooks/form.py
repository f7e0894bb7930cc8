# SPDX-License-Identifier: Apache-2.0
"""The connection form of Airflow 2.11 to 3.1, built from the provider info. Later versions read that directly."""

from __future__ import annotations

from typing import Any

from intergiro_provider.get_provider_info import get_provider_info


def connection_form_widgets() -> dict[str, Any]:
    """Return a form field for each setting in the connection's extra, keyed by the setting's name."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    widgets = {}
    for name, field in get_provider_info()["connection-types"][0]["conn-fields"].items():
        schema = field["schema"]
        common = {"description": field["description"]}
        label = lazy_gettext(field["label"])
        # These versions do not support select fields.
        if "integer" in schema["type"]:
            widget = IntegerField(label, validators=[Optional()], widget=BS3TextFieldWidget(), **common)
        elif name == "proxies":
            widget = PasswordField(label, widget=BS3PasswordFieldWidget(), **common)
        else:
            widget = StringField(label, widget=BS3TextFieldWidget(), **common)
        widgets[name] = widget
    return widgets
