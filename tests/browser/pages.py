"""Prefect's pages as an operator uses them: a form, a run, an artifact; found by labels and words, never by styles.

Waits on what the page shows. Where the driver and the browser come from is in conftest.py.
"""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect
from prefect.client.orchestration import SyncPrefectClient

from tests.servers import until

_RUN_MS = 90_000
_STILL = 4  # screenshots that are equal
_SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"


class Browser:
    """One page of a browser on a server's UI.

    Attributes:
        page: the page, for what is not named here.
        client: of the same server's API: finds what a page is of.
    """

    def __init__(self, page: Page, url: str, client: SyncPrefectClient) -> None:
        self.page = page
        self.client = client
        self._url = url

    def picture(self, name: str) -> None:
        """Keep a screenshot of the window as build/screenshots/NAME.png, once it stands still.

        A run's timeline is drawn slowly, on a canvas that says nothing of it.
        """
        _SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate("document.activeElement?.blur()")
        seen: list[bytes] = []

        def is_still() -> bool:
            seen.append(self.page.screenshot())
            needed = _STILL if self.page.locator("canvas").count() else 1
            return len(seen) >= needed and len(set(seen[-needed:])) == 1

        until(is_still, seconds=30, what=f"{name} stands still")
        (_SCREENSHOTS / f"{name}.png").write_bytes(seen[-1])

    def open(self, path: str) -> None:
        """Open one of the UI's pages."""
        self.page.goto(f"{self._url}/v2/{path}")

    def open_deployment(self, name: str) -> None:
        """Open the page of a deployment, `flow/deployment`."""
        self.open(f"deployments/deployment/{self.client.read_deployment_by_name(name).id}")

    def open_form(self, name: str) -> None:
        """Open a deployment's page and its form, by the button Run and the item Custom run."""
        self.open_deployment(name)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.submit_button.wait_for()

    @property
    def submit_button(self) -> Locator:
        """The form's button."""
        return self.page.get_by_role("button", name="Submit")

    @property
    def notes(self) -> Locator:
        """What pops up at the lower right."""
        return self.page.get_by_role("region", name=re.compile("Notifications"))

    def field(self, parameter: str) -> Locator:
        """A parameter's part of a form: its title, sentence, input, and what is wrong with it."""
        title = self.page.locator("label", has_text=re.compile(rf"^{parameter}( \(|$)"))
        return title.locator("xpath=ancestor::div[fieldset][1]")

    def fill(self, **parameters: Any) -> None:
        """Fill parameters in: texts and numbers are typed, a switch is set."""
        for name, value in parameters.items():
            field = self.field(name)
            if isinstance(value, bool):
                field.get_by_role("switch").set_checked(value)
            else:
                box = field.get_by_role("spinbutton").or_(field.get_by_role("textbox"))
                box.fill(str(value))

    def choose(self, parameter: str, choice: str) -> None:
        """Choose from a drop-down."""
        self.field(parameter).get_by_role("button", name=f"Select {parameter}").click()
        self.page.get_by_role("option", name=choice, exact=True).click()

    def submit(self) -> None:
        """Send the form, and go on to the page of the run that it makes."""
        self._press(self.submit_button)
        self.notes.get_by_role("link", name="View run").first.click()
        self.page.wait_for_url("**/runs/flow-run/**")

    def _press(self, button: Locator) -> None:
        """By the keyboard: notes lie over the lower right corner, and stay where the pointer is on them."""
        button.focus()
        self.page.keyboard.press("Enter")

    def refused(self, parameter: str, words: str) -> None:
        """Send the form, and see that it stays there and says what is wrong with a parameter."""
        self._press(self.submit_button)
        expect(self.field(parameter)).to_contain_text(words)
        expect(self.submit_button).to_be_visible()
        self.field(parameter).scroll_into_view_if_needed()

    def wait_for_state(self, *names: str) -> str:
        """Look on, on a run's page, until it shows one of these states, alone in a line."""
        self.page.get_by_role("tab", name="Job Variables").wait_for()  # other pages list runs with their states
        shown = self.page.get_by_role("main").get_by_text(re.compile(rf"^({'|'.join(names)})$")).first
        shown.wait_for(timeout=_RUN_MS)
        return shown.inner_text()

    def tab(self, name: str) -> Locator:
        """Open a tab of a run's page; its panel."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel", name=name)

    def show_last_lines_first(self) -> None:
        """Sort the log of a run's page so."""
        self.page.get_by_role("combobox", name="log sort order").click()
        self.page.get_by_role("option", name="Newest to oldest").click()

    def choose_action(self, name: str) -> None:
        """An item of the menu at the upper right of a run's page."""
        self.page.get_by_role("main").get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name=name, exact=True).click()

    def retry(self) -> None:
        """Retry the run whose page this is, and confirm it."""
        self.choose_action("Retry")
        dialog = self.page.get_by_role("alertdialog", name="Retry Flow Run")
        expect(dialog).to_contain_text("AwaitingRetry")
        self.picture("retry")
        dialog.get_by_role("button", name="Retry", exact=True).click()

    @property
    def run_id(self) -> str:
        """The id of the run whose page this is."""
        return self.page.url.rpartition("/flow-run/")[2].partition("?")[0]
