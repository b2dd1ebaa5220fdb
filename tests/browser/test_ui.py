"""An operator at Prefect's UI, with a real browser, server and worker: forms, runs, artifacts, retries, copies, schedules."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from playwright.sync_api import expect
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.schedules import CronSchedule

from tests.browser.pages import Browser
from tests.servers import until

# One worker of pytest-xdist for the whole module, and for the other that stands on `make up`: one server and one browser.
pytestmark = [pytest.mark.server, pytest.mark.xdist_group("up")]

_RASTER = "transform-raster/ad-hoc"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", r"\w+Error", r"Memory\w+")
_SCENE = "incoming/T32UQD.tif"
_SCALED = "published/T32UQD_scaled.tif"


@pytest.fixture(scope="module")
def normalised(browser: Browser, scenes: Path) -> str:
    """The id of a run that was made by the form, and has completed on its page."""
    browser.open_form(_RASTER)
    browser.fill(source=scenes / _SCENE, destination=scenes / _SCALED, memory_limit_mb=512)
    browser.choose("operation", "normalise")
    browser.picture("form")
    browser.submit()
    assert browser.wait_for_state(*_ENDS) == "Completed"
    return browser.run_id


def test_the_form_makes_the_run_that_was_filled_in(browser: Browser, normalised: str, scenes: Path) -> None:
    """What the form says is what the run gets, and what it writes: pixels divided by 10,000."""
    sent = browser.client.read_flow_run(normalised).parameters
    assert (sent["operation"], sent["memory_limit_mb"]) == ("normalise", 512)
    with rasterio.open(scenes / _SCENE) as before, rasterio.open(scenes / _SCALED) as after:
        np.testing.assert_allclose(after.read(2), before.read(2).astype("float32") / 10000, rtol=1e-6)


def test_a_runs_page_shows_its_state_tasks_and_lines_for_people(browser: Browser, normalised: str) -> None:
    """The page says Completed, lists tasks that completed, and its log has sentences, no raw JSON."""
    browser.open(f"runs/flow-run/{normalised}")
    assert browser.wait_for_state(*_ENDS) == "Completed"
    shown = browser.tab("Logs").get_by_role("log")
    expect(shown.get_by_text("512.0 MiB").first).to_be_visible()
    browser.show_last_lines_first()
    browser.picture("run")
    lines = browser.client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[normalised])))
    for text in [*shown.inner_text().splitlines(), *(each.message for each in lines)]:
        assert not _is_json(text), text
    expect(browser.tab("Task Runs").get_by_text(re.compile(r"^\(\d+ Completed\)$"))).to_be_visible()


def _is_json(text: str) -> bool:
    """True for an object or a list; a number alone is a word of a sentence."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def test_the_artifacts_of_a_run_show_picture_and_table(browser: Browser, normalised: str) -> None:
    """From the run's page a card leads to the report, whose picture the browser draws, and one to a table."""
    browser.open(f"runs/flow-run/{normalised}")
    browser.tab("Artifacts").get_by_role("link").filter(has_text="MARKDOWN").first.click()
    picture = browser.page.get_by_role("img", name=re.compile("memory over time"))
    picture.wait_for()
    size = picture.evaluate(
        "async drawn => { await drawn.decode(); return [drawn.naturalWidth, drawn.naturalHeight]; }"
    )
    assert min(size) > 200
    expect(browser.page.get_by_role("row", name=re.compile(r"Limit.* 512\.0 MiB")).first).to_be_visible()
    browser.picture("report")
    browser.page.emulate_media(color_scheme="dark")
    browser.picture("report-dark")
    browser.page.emulate_media(color_scheme="light")
    browser.page.go_back()
    browser.tab("Artifacts").get_by_role("link").filter(has_text="TABLE").first.click()
    expect(browser.page.get_by_role("columnheader").first).to_be_visible()
    assert browser.page.get_by_role("row").count() > 1
    browser.picture("table")


def test_every_artifact_of_a_run_can_be_opened(browser: Browser, normalised: str) -> None:
    """Each artifact's page shows its content: a heading or a table, never an empty panel."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[normalised]))
    found = browser.client.read_artifacts(artifact_filter=of_run)
    assert found
    for each in found:
        browser.open(f"artifacts/artifact/{each.id}")
        panel = browser.page.get_by_role("tabpanel", name="Artifact")
        expect(panel.get_by_role("heading").or_(panel.get_by_role("table")).first).to_be_visible()


def test_the_form_rejects_wrong_values(browser: Browser, scenes: Path) -> None:
    """Out of bounds, no number, nothing at all: the form stays, names the parameter, and no run is made."""
    browser.open_form(_RASTER)
    browser.fill(source=scenes / _SCENE, destination=scenes / "published" / "never.tif", memory_limit_mb=-5)
    browser.refused("memory_limit_mb", "-5 is less than or equal to the minimum of 0")
    browser.picture("rejected")
    browser.fill(memory_limit_mb=512, block_size=17)
    browser.refused("block_size", "17 is not a multiple of 16")
    browser.fill(block_size=256, source="")
    browser.refused("source", "'source' is a required property")
    limit = browser.field("memory_limit_mb").get_by_role("spinbutton")
    limit.fill("")
    limit.press_sequentially("lots")
    assert not limit.input_value()
    made = [each.parameters.get("destination") for each in browser.client.read_flow_runs(limit=200)]
    assert str(scenes / "published" / "never.tif") not in made


def test_a_failed_run_is_retried_from_its_page(browser: Browser, scenes: Path) -> None:
    """A run whose source is missing says so; once the file is there, Retry completes the same run."""
    late, destination = scenes / "incoming" / "late.tif", scenes / "published" / "late.tif"
    browser.open_form(_RASTER)
    browser.fill(source=late, destination=destination, memory_limit_mb=512, profile=False)
    browser.choose("verify", "none")
    browser.submit()
    assert browser.wait_for_state(*_ENDS) == "SourceError"
    expect(browser.tab("Details").get_by_text(f"{late} does not exist")).to_be_visible()
    browser.picture("failed")
    shutil.copyfile(scenes / _SCENE, late)
    browser.retry()
    browser.wait_for_state("Completed")
    again = browser.client.read_flow_run(browser.run_id)
    assert (again.state_name, again.run_count) == ("Completed", 2)
    assert destination.exists()


def test_a_run_is_copied_with_another_parameter(browser: Browser, normalised: str, scenes: Path) -> None:
    """The copy's form is filled in as the first run was; what is changed is changed, and the rest stays."""
    halved = scenes / "published" / "T32UQD_halved.tif"
    browser.open(f"runs/flow-run/{normalised}")
    browser.choose_action("Copy to new run")
    expect(browser.field("source").get_by_role("textbox")).to_have_value(str(scenes / _SCENE))
    browser.fill(destination=halved, scale=20000)
    browser.submit()
    assert browser.run_id != normalised
    assert browser.wait_for_state(*_ENDS) == "Completed"
    before, after = (browser.client.read_flow_run(each).parameters for each in (normalised, browser.run_id))
    assert after == before | {"destination": str(halved), "scale": 20000}
    with rasterio.open(scenes / _SCALED) as whole, rasterio.open(halved) as half:
        np.testing.assert_allclose(half.read(1), whole.read(1) / 2, rtol=1e-6)


def test_each_deployments_form_opens_with_all_its_parameters(browser: Browser) -> None:
    """The form of every deployment shows each parameter that its flow has."""
    deployments = browser.client.read_deployments()
    assert deployments
    for each in deployments:
        browser.open(f"deployments/deployment/{each.id}/run")
        for parameter in each.parameter_openapi_schema["properties"]:
            expect(browser.field(parameter), f"{each.name}: {parameter}").to_be_visible()


def test_schedules_are_shown_on_their_deployments_pages(browser: Browser) -> None:
    """A scheduled deployment says at what time, with its switch on, and lists the runs to come."""
    scheduled = [each for each in browser.client.read_deployments() if each.schedules]
    assert scheduled
    for each in scheduled:
        browser.open(f"deployments/deployment/{each.id}")
        for line in each.schedules:
            assert isinstance(line.schedule, CronSchedule)
            minute, hour = line.schedule.cron.split()[:2]
            switch = browser.page.get_by_role("switch", name=re.compile(f"{int(hour):02}:{int(minute):02} AM"))
            expect(switch).to_be_checked()
    until(lambda: browser.client.read_flow_runs(limit=200), what="the scheduler makes runs")
    panel = browser.tab("Upcoming")
    expect(panel.get_by_text(re.compile(r"^Scheduled$")).first).to_be_visible()
    browser.picture("schedule")
