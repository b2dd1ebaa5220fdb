"""The operator's guide names what exists: Prefect's settings, ours, files, its own headings, states."""

import re
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from lib.errors import SwathError
from lib.settings import Settings

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
GUIDE = (DEPLOYMENTS / "README.md").read_text(encoding="utf-8")
WORDS = {
    path.name: path.read_text(encoding="utf-8")
    for path in [DEPLOYMENTS / "README.md", DEPLOYMENTS / "prefect.yaml", *(DEPLOYMENTS / "systemd").iterdir()]
}


@pytest.mark.parametrize("name", WORDS)
def test_settings_that_are_named_exist(name: str) -> None:
    """A misspelt one would be passed over in silence by Prefect, and by whoever follows the guide."""
    prefects = set(get_current_settings().to_environment_variables(exclude_unset=False, include_secrets=False))
    named = set(re.findall(r"\bPREFECT_[A-Z0-9_]+", WORDS[name])) - {"PREFECT_HOME"}
    assert named - prefects - _aliases(named) == set()
    ours = {each.removeprefix("BATCH_").lower() for each in re.findall(r"\bBATCH_[A-Z_]+", WORDS[name])}
    assert ours - set(Settings.model_fields) - {"config"} == set()


def _aliases(names: set[str]) -> set[str]:
    """Names that Prefect's settings take beside their own."""
    import prefect.settings

    return {name for name in names if hasattr(prefect.settings, name)}


def test_links_lead_somewhere() -> None:
    """To its own headings, and to files beside it."""
    headings = {
        re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-")
        for each in re.findall(r"^## (.*)$", GUIDE, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        assert target.startswith("#") or (DEPLOYMENTS / target).is_file(), target
        assert not target.startswith("#") or target[1:] in headings, target


def test_every_state_of_an_error_is_in_the_table_for_3_am() -> None:
    """Each error that can end a run, by its name, which is the state's."""
    table = GUIDE[GUIDE.index("## 3 AM") : GUIDE.index("## Upkeep")]
    said = set(re.findall(r"`(\w+)`", table))
    families = {"SwathError", "Refused", "Exceeded", "JobFailed", "Cancelled", "Interrupted", "Terminated"}
    assert set(SwathError.known()) - families - said == set()
