# SPDX-License-Identifier: Apache-2.0
"""Airflow's pages in a browser: the connection form, the test button, a run and its log.

`make screenshots` takes the pictures of the documentation with these tests.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography.fernet import Fernet

from intergiro_provider.get_provider_info import get_provider_info
from intergiro_provider.links.intergiro import PORTAL
from tests.system.browser import Pictures, Watched
from tests.system.conftest import AIRFLOW, System

if AIRFLOW < (3, 2):
    pytest.skip("the form of the provider info is that of Airflow 3.2 and later", allow_module_level=True)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

#: The connection that the form creates.
CONNECTION = "intergiro_staging"
WRONG_KEY = "5a4db0c5-0000-4000-8000-0000bad0c0de"
FORM = get_provider_info()["connection-types"][0]
FIELDS: dict[str, dict[str, Any]] = FORM["conn-fields"]


@pytest.fixture
def watched(browser: Browser, system: System) -> Iterator[Watched]:
    """Open an empty page. At the end, check that no response of the server contained an API key."""
    watched = Watched(browser)
    yield watched
    key = good_key(system).encode()
    watched.page.close()
    assert watched.received, "nothing was watched"
    assert [url for url, body in watched.received if key in body] == []


@pytest.fixture
def connections(watched: Watched, system: System) -> None:
    """Open the page of connections."""
    watched.page.goto(f"{system.airflow.url}/connections")


def good_key(system: System) -> str:
    key: str = system.bank.settings()["api_keys"][0]
    return key


class Form:
    """The dialog to add or edit a connection."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.dialog: Locator = watched.page.get_by_role("dialog")

    def add(self, conn_id: str) -> None:
        """Open the dialog for a new connection of the provider's type."""
        self.watched.page.get_by_role("button", name="Add Connection").click()
        self.dialog.get_by_label("Connection ID").fill(conn_id)
        self.dialog.get_by_label("Connection Type").fill(FORM["hook-name"])
        self.dialog.get_by_label("Connection Type").press("Enter")
        self.dialog.get_by_label("API key").wait_for()

    def edit(self, conn_id: str) -> None:
        """Open the dialog for an existing connection."""
        row(self.watched, conn_id).get_by_role("button", name="Edit Connection").click()
        self.dialog.get_by_label("API key").wait_for()

    def section(self, name: str) -> Locator:
        """Open a section, if it is closed, and return its content."""
        heading = self.watched.page.get_by_role("button", name=name, exact=True)
        if heading.get_attribute("aria-expanded") != "true":
            heading.click()
        # The role cannot be used: Airflow labels it by an id that contains a space.
        return self.dialog.locator("[data-scope=accordion][data-part=item]").filter(has=heading)

    def field(self, name: str) -> Locator:
        """Return a field of the provider: label, input and help."""
        label = self.watched.page.get_by_text(FIELDS[name]["label"], exact=True)
        return self.section("Extra Fields").get_by_role("group").filter(has=label)

    def choose(self, name: str, value: str) -> None:
        """Choose an option of a list."""
        self.field(name).get_by_role("combobox").click()
        self.watched.page.get_by_role("option", name=value, exact=True).click()

    def write(self, name: str, text: str) -> None:
        """Replace the text of an editor, and remove the brackets that the editor adds."""
        keyboard = self.watched.page.keyboard
        editor(self.field(name)).click()
        keyboard.press("Control+A")
        keyboard.insert_text(text)
        keyboard.press("Control+Shift+End")
        keyboard.press("Delete")

    def save(self) -> None:
        """Save, and wait until the dialog is closed."""
        self.dialog.get_by_role("button", name="Save").click()
        self.dialog.wait_for(state="hidden")


def editor(field: Locator) -> Locator:
    """Return the editor of a JSON object."""
    return field.get_by_role("code")


def row(watched: Watched, conn_id: str) -> Locator:
    """Return the row of a connection in the list."""
    return watched.page.get_by_role("row").filter(has=watched.page.get_by_text(conn_id, exact=True))


def press_test(watched: Watched, conn_id: str) -> str:
    """Press the test button of a connection, and return the message."""
    button = row(watched, conn_id).get_by_role("button", name="Test Connection")
    assert button.is_enabled()
    button.click()
    said = watched.page.get_by_role("status").filter(has_text="Test Connection")
    said.wait_for()
    watched.page.mouse.move(0, 0)  # the tooltip of the button would hide the next row
    return said.inner_text()


def stored(system: System, conn_id: str) -> dict[str, Any]:
    """Return a connection from the REST API."""
    found: dict[str, Any] = system.airflow.rest.call("GET", f"/connections/{conn_id}")
    return found


@pytest.mark.usefixtures("connections")
def test_the_form_has_every_field_with_its_label_its_help_and_its_kind(
    watched: Watched, system: System, pictures: Pictures
) -> None:
    form = Form(watched)
    form.add("intergiro_default")
    standard = form.section("Standard Fields")
    for name, label in {"host": "Host", "password": "API key", "port": "Port"}.items():
        field = standard.get_by_label(label, exact=True)
        assert field.get_attribute("placeholder") == FORM["ui-field-behaviour"]["placeholders"][name]
    assert standard.get_by_label("API key", exact=True).get_attribute("type") == "password"
    for hidden in ("Login", "Schema", "Password"):
        assert standard.get_by_label(hidden, exact=True).count() == 0
    watched.page.set_viewport_size({"width": 1280, "height": 860})
    pictures.take(watched, "connection-form", form.dialog)

    extra = form.section("Extra Fields")
    for name, described in FIELDS.items():
        field = form.field(name)
        field.get_by_text(described["description"], exact=True).wait_for()
        assert "*" not in field.inner_text().split("\n")[0], f"{name} is not required"
        schema = described["schema"]
        if "enum" in schema:
            field.get_by_role("combobox").click()
            offered = watched.page.get_by_role("option").all_inner_texts()
            field.get_by_text(described["description"], exact=True).click()  # Escape would close the whole dialog
            assert offered == schema["enum"]
        elif "integer" in schema["type"] or "number" in schema["type"]:
            assert field.get_by_role("spinbutton").get_attribute("aria-valuemin") == str(schema["minimum"])
        elif "object" in schema["type"]:
            assert editor(field).count() == 1
        else:
            assert field.locator("input[type=text], input:not([type])").count() == 1
    assert extra.get_by_role("group").filter(has=watched.page.locator("label")).count() == len(FIELDS)

    form.choose("api", "3d")
    form.choose("environment", "staging")
    watched.page.set_viewport_size({"width": 1280, "height": 1500})
    pictures.take(watched, "connection-form-extra", extra)


@pytest.mark.usefixtures("connections")
def test_a_connection_is_made_in_the_form_and_works(watched: Watched, system: System) -> None:
    form = Form(watched)
    form.add(CONNECTION)
    standard = form.section("Standard Fields")
    standard.get_by_label("Description").fill("The sandbox")
    standard.get_by_label("Host").fill("http://127.0.0.1")
    standard.get_by_label("API key").fill(good_key(system))
    standard.get_by_label("Port").fill(str(system.bank.port))
    form.choose("api", "2d")
    form.choose("environment", "staging")
    form.field("max_logins_per_hour").get_by_role("spinbutton").fill("5")
    form.field("connect_timeout").get_by_role("spinbutton").fill("2.5")
    form.write("proxies", '{"https": "http://someone:hidden@proxy.example:3128"}')
    form.save()

    saved = stored(system, CONNECTION)
    assert (saved["conn_type"], saved["host"], saved["port"]) == ("intergiro", "http://127.0.0.1", system.bank.port)
    assert saved["password"] == "***"
    extra = json.loads(saved["extra"])
    given = {"api": "2d", "environment": "staging", "max_logins_per_hour": 5, "connect_timeout": 2.5}
    assert extra == {**dict.fromkeys(FIELDS), **given, "proxies": {"https": "***"}}

    run = system.run("by_connection", conn_id=CONNECTION)
    result = system.airflow.rest.xcom("by_connection", run, "accounts")
    assert result["rows"] > 0
    assert result["url"].startswith(f"{system.bank.url}/v1/accounts"), "the form's choice is what the task uses"


@pytest.mark.usefixtures("connections")
def test_it_is_read_back_and_saved_again_without_the_key(watched: Watched, system: System) -> None:
    form = Form(watched)
    form.edit(CONNECTION)
    standard = form.section("Standard Fields")
    assert standard.get_by_label("API key").input_value() == "***"
    assert standard.get_by_label("Host").input_value() == "http://127.0.0.1"
    assert "2d" in form.field("api").inner_text()
    assert "staging" in form.field("environment").inner_text()
    assert form.field("connect_timeout").get_by_role("spinbutton").input_value() == "2.5"
    assert "hidden" not in form.field("proxies").inner_text()

    form.choose("api", "3d")
    form.section("Standard Fields").get_by_label("Description").fill("The sandbox, 3d")
    form.save()

    assert stored(system, CONNECTION)["description"] == "The sandbox, 3d"
    with closing(sqlite3.connect(f"file:{system.airflow.home / 'airflow.db'}?mode=ro", uri=True)) as database:
        query = "select password, extra from connection where conn_id = ?"
        kept = database.execute(query, (CONNECTION,)).fetchone()
    fernet = Fernet(system.airflow.env["AIRFLOW__CORE__FERNET_KEY"])
    password, extra = (fernet.decrypt(cell).decode() for cell in kept)
    assert password == good_key(system), "the key was not typed again, and is still there"
    assert json.loads(extra)["proxies"] == {"https": "http://someone:hidden@proxy.example:3128"}
    run = system.run("by_connection", conn_id=CONNECTION)
    assert "/v3/accounts" in system.airflow.rest.xcom("by_connection", run, "accounts")["url"]


@pytest.mark.usefixtures("connections")
def test_the_test_button_says_that_the_key_is_accepted(watched: Watched, system: System, pictures: Pictures) -> None:
    before = system.bank.counters()
    said = press_test(watched, CONNECTION)
    assert "Successful" in said
    assert "accepts the API key" in said
    assert "This test was a login" in said
    assert system.bank.counters()["logins"] == before["logins"] + 1
    watched.page.set_viewport_size({"width": 1280, "height": 520})
    pictures.take(watched, "connection-test")


@pytest.mark.parametrize(
    ("conn_id", "reachable", "message"),
    [
        ("intergiro_wrong_key", True, r"does not accept the API key \(.*401.*\): it is wrong, frozen"),
        ("intergiro_unreachable", False, r"cannot be reached \(.*\)\. Check the host, the network and `proxies`"),
    ],
)
def test_the_test_button_says_what_is_wrong(
    watched: Watched, system: System, pictures: Pictures, conn_id: str, reachable: bool, message: str
) -> None:
    port = system.bank.port if reachable else 1
    system.airflow.rest.put_connection(
        conn_id, conn_type="intergiro", host="http://127.0.0.1", port=port, password=WRONG_KEY
    )
    watched.page.goto(f"{system.airflow.url}/connections")
    said = press_test(watched, conn_id)
    assert "Failed" in said
    assert re.search(message, said)
    assert WRONG_KEY not in said
    watched.page.set_viewport_size({"width": 1280, "height": 520})
    pictures.take(watched, conn_id.replace("intergiro", "connection-test").replace("_", "-"))
    system.airflow.rest.call("DELETE", f"/connections/{conn_id}")


@pytest.mark.usefixtures("connections")
def test_the_test_button_works_without_a_host_of_ones_own(watched: Watched, system: System) -> None:
    """Airflow 3.3.1 and 3.3.2 test a connection only if it has a port. As the form says, 0 is enough.

    The wrong proxy prevents a request to the real bank.
    """
    form = Form(watched)
    form.add("intergiro_without_host")
    form.section("Standard Fields").get_by_label("API key").fill(WRONG_KEY)
    form.section("Standard Fields").get_by_label("Port").fill("0")
    form.choose("environment", "staging")
    form.write("proxies", '{"https": "http://127.0.0.1:1"}')
    form.save()
    said = press_test(watched, "intergiro_without_host")
    assert "https://3d.staging.intergiro.tech cannot be reached (ProxyError)" in said
    system.airflow.rest.call("DELETE", "/connections/intergiro_without_host")


def test_the_nightly_dag_after_a_run(watched: Watched, system: System, pictures: Pictures) -> None:
    run = system.latest("intergiro_nightly")
    page = watched.page
    address = f"{system.airflow.url}/dags/intergiro_nightly/runs/{quote(run)}"
    watched.page.goto(address)
    page.get_by_role("button", name="Show Graph").click()
    for task in ("plan", "pull [4]", "announce"):
        page.locator(".react-flow__node").filter(has_text=task).wait_for()
    pictures.take(watched, "nightly-graph")

    (pull,) = [
        instance["map_index"]
        for instance in system.airflow.rest.task_instances("intergiro_nightly", run)
        if instance["rendered_map_index"] == "transactions"
    ]
    watched.page.goto(f"{address}/tasks/pull/mapped/{pull}/details")
    link = page.get_by_role("link", name="Intergiro portal")
    link.scroll_into_view_if_needed()
    assert link.get_attribute("href") == PORTAL
    pictures.take(watched, "pull-links")

    page.get_by_role("link", name="Logs", exact=True).click()
    page.get_by_role("button", name="Press f for fullscreen").click()
    page.get_by_role("dialog").get_by_text(re.compile(r"transactions: pulled \d+ records")).wait_for()
    page.set_viewport_size({"width": 1000, "height": 300})
    pictures.take(watched, "pull-log")


def test_the_session_is_masked_where_people_look(watched: Watched, system: System, pictures: Pictures) -> None:
    page = watched.page
    watched.page.goto(f"{system.airflow.url}/variables?name_pattern=intergiro_session_")
    page.get_by_text(re.compile("^intergiro_session_[0-9a-f]{16}$")).first.wait_for()
    page.get_by_role("button", name=re.compile("expand", re.IGNORECASE)).first.click()
    page.get_by_text("refresh_token", exact=False).first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 540})
    pictures.take(watched, "session-variables")
    bodies = b"".join(body for url, body in watched.received if "/variables" in url)
    assert b"refresh_token" in bodies
    for token in system.bank.tokens():
        assert token.encode() not in bodies
