"""Settings: four layers, each value with its origin, each bad value with its layer and key."""

from pathlib import Path
from typing import Any

import pytest

from lib.errors import SettingsError
from lib.request import resources_of
from lib.settings import Origin, Settings, load_settings
from lib.units import MIB


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A path for a YAML file."""
    return tmp_path / "swath.yaml"


def test_defaults_are_the_documented_ones() -> None:
    """With nothing set anywhere, the three settings of the card have the card's values, from the defaults."""
    settings, origins = load_settings(environ={})
    assert (settings.memory_limit_mb, settings.chunk_rows, settings.gdal_cache_bytes) == (2048, 10000, 512 * MIB)
    assert set(origins.values()) == {Origin("default", "")}
    assert set(origins) == set(Settings.model_fields)


def test_a_higher_layer_wins_and_each_value_has_its_origin(config: Path) -> None:
    """Flag over environment over file over default, key by key."""
    config.write_text("memory_limit_mb: 1\nchunk_rows: 2\nmargin_mb: 3\n")
    environ = {"BATCH_MEMORY_LIMIT_MB": "10", "BATCH_CHUNK_ROWS": "20"}
    settings, origins = load_settings(config, {"memory_limit_mb": 100, "chunk_rows": None}, environ=environ)
    assert (settings.memory_limit_mb, settings.chunk_rows, settings.margin_mb) == (100, 20, 3)
    assert origins["memory_limit_mb"] == Origin("flag", "--memory-limit-mb")
    assert origins["chunk_rows"] == Origin("environment", "BATCH_CHUNK_ROWS")
    assert origins["margin_mb"] == Origin("file", str(config))
    assert origins["drift_threshold_mb"] == Origin("default", "")


def test_a_flow_parameter_is_called_one() -> None:
    """The fourth layer is called what it is where it comes from: a parameter has no dashes."""
    settings, origins = load_settings(given={"threads": 3}, environ={}, given_layer="parameter")
    assert settings.threads == 3
    assert str(origins["threads"]) == "parameter threads"


def test_batch_config_names_the_file_where_no_flag_does(config: Path, tmp_path: Path) -> None:
    """BATCH_CONFIG stands in for --config, which wins over it."""
    config.write_text("chunk_rows: 7\n")
    other = tmp_path / "other.yaml"
    other.write_text("chunk_rows: 8\n")
    assert load_settings(environ={"BATCH_CONFIG": str(config)}).settings.chunk_rows == 7
    assert load_settings(other, environ={"BATCH_CONFIG": str(config)}).settings.chunk_rows == 8


@pytest.mark.parametrize(
    ("environ", "cache_bytes", "name"),
    [
        ({"GDAL_CACHEMAX": "64"}, 64 * MIB, "GDAL_CACHEMAX"),
        ({"GDAL_CACHEMAX": "64MB"}, 64 * MIB, "GDAL_CACHEMAX"),
        ({"GDAL_CACHEMAX": "67108864"}, 64 * MIB, "GDAL_CACHEMAX"),
        ({"GDAL_CACHEMAX": "64", "BATCH_GDAL_CACHEMAX": "32"}, 32 * MIB, "BATCH_GDAL_CACHEMAX"),
    ],
)
def test_gdals_own_variables_are_settings(environ: dict[str, str], cache_bytes: int, name: str) -> None:
    """GDAL_CACHEMAX counts in GDAL's syntax; our own name for it is the more special one."""
    settings, origins = load_settings(environ=environ)
    assert settings.gdal_cache_bytes == cache_bytes
    assert origins["gdal_cachemax"] == Origin("environment", name)


def test_gdals_threads_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL_NUM_THREADS takes a number or ALL_CPUS."""
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert load_settings(environ={"GDAL_NUM_THREADS": "3"}).settings.gdal_num_threads == 3
    assert load_settings(environ={"GDAL_NUM_THREADS": "ALL_CPUS"}).settings.gdal_num_threads == 12


def test_another_systems_variables_are_left_alone() -> None:
    """Google Cloud Batch sets BATCH_TASK_INDEX and others in each task: they are no settings of ours."""
    environ = {"BATCH_TASK_INDEX": "0", "BATCH_JOB_UID": "j", "BATCH_CHUNK_ROWS": ""}
    assert load_settings(environ=environ).settings.chunk_rows == 10000


def test_an_empty_file_sets_nothing(config: Path) -> None:
    """A file of comments only is a file."""
    config.write_text("# nothing yet\n")
    assert load_settings(config, environ={}).is_default("memory_limit_mb")


BAD: list[tuple[str, Any, str]] = [
    ("memory_limit_mb", -5, "greater than 0"),
    ("memory_limit_mb", 0, "greater than 0"),
    ("memory_limit_mb", "2GB", "write 2048"),
    ("memory_limit_mb", "much", "not a whole number"),
    ("memory_limit_mb", 1.5, ""),  # YAML has floats, the environment has text: each in its own words
    ("memory_limit_max_mb", "-1", "greater than 0"),
    ("max_chunk_mb", 0, "greater than 0"),
    ("chunk_rows", 0, "greater than 0"),
    ("chunk_rows", "ten", "valid integer"),
    ("threads", 0, "from 1 on"),
    ("threads", "many", "from 1 on"),
    ("gdal_cachemax", "-1", "not a cache size"),
    ("gdal_cachemax", "150%", "not a cache size"),
    ("gdal_num_threads", "0", "from 1 on"),
    ("drift_threshold_mb", 0, "greater than 0"),
    ("residual_tolerance_mb", -1, "greater than or equal to 0"),
    ("margin_mb", "1e3", "not a whole number"),
    ("watch_interval_ms", 1, "greater than or equal to 5"),
    ("stall_seconds", 0, "greater than 0"),
    ("startup_seconds", "soon", "valid number"),
    ("timeout_seconds", -1, "greater than 0"),
    ("host_reserve_fraction", 1, "less than 1"),
    ("host_budget_mb", 0, "greater than 0"),
    ("stall_seconds", ".inf", ""),  # the environment's ".inf" is no number, YAML's is
    ("startup_seconds", "inf", ""),
    ("timeout_seconds", ".nan", ""),
    ("host_reserve_fraction", ".nan", ""),
    ("ledger_path", "~nobody-of-that-name/x", "home"),
    ("memory_limit", 512, "unknown setting"),
]


@pytest.mark.parametrize(("key", "value", "problem"), BAD, ids=[f"{key}={value}" for key, value, _ in BAD])
@pytest.mark.parametrize("layer", ["file", "environment", "flag", "parameter"])
def test_a_bad_value_is_told_with_its_layer_and_key(
    layer: str, key: str, value: Any, problem: str, config: Path
) -> None:
    """Whatever the layer, a value that cannot be used is an error that names layer, key and what is wrong with it."""
    environ, given = {}, {}
    if layer == "file":
        config.write_text(f"{key}: {value}\n")
    elif layer == "environment":
        environ = {f"BATCH_{key.upper()}": str(value)}
    else:
        given = {key: value}
    file = config if layer == "file" else None
    with pytest.raises(SettingsError) as caught:
        load_settings(file, given, environ=environ, given_layer="flag" if layer == "file" else layer)
    error = caught.value
    assert (error.layer, error.key) == (layer, key)
    assert problem in error.message
    assert key in error.message
    assert error.message.startswith(layer)
    assert error.exit_code == 2


@pytest.mark.parametrize("key", sorted(Settings.model_fields))
def test_a_yes_is_no_number(key: str, config: Path) -> None:
    """YAML's `yes` is a boolean: no setting takes it for 1."""
    config.write_text(f"{key}: yes\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ={})
    assert (caught.value.layer, caught.value.key) == ("file", key)


def test_a_bad_value_below_a_good_one_is_still_told() -> None:
    """A flag does not hide what is wrong in the environment below it."""
    with pytest.raises(SettingsError, match="BATCH_MEMORY_LIMIT_MB"):
        load_settings(given={"memory_limit_mb": 512}, environ={"BATCH_MEMORY_LIMIT_MB": "much"})


def test_a_misspelt_key_gets_the_one_that_was_meant(config: Path) -> None:
    """The hint names the nearest setting."""
    config.write_text("memory_limit_mib: 512\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ={})
    assert caught.value.hint == "did you mean memory_limit_mb?"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"memory_limit_mb: [1\n", "is not YAML at line"),
        (b"threads: 1\nthreads: 2\n", "'threads' is given twice"),
        (b"chunk_rows: 5\n[1, 2]: 3\n", "at line 2, column 1: a sequence cannot be a key"),
        (b"{a: 1}: 3\n", "a mapping cannot be a key"),
        (b"- memory_limit_mb\n", "holds a list"),
        (b"512\n", "holds a int"),
        (b"\xff\xfe\x00\x00bad", "not"),
    ],
)
def test_a_file_that_is_no_settings_file_is_told(content: bytes, problem: str, config: Path) -> None:
    """Malformed YAML, another shape, no text: one line with the file's name."""
    config.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ={})
    assert problem in caught.value.message
    assert str(config) in caught.value.message
    assert caught.value.layer == "file"


def test_a_file_that_is_missing_or_a_folder_is_told(tmp_path: Path) -> None:
    """What --config names must be a file that can be read."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match=str(path)):
            load_settings(path, environ={})
    with pytest.raises(SettingsError, match="settings file"):
        load_settings("", environ={})


def test_a_ceiling_below_the_limit_names_both_origins() -> None:
    """memory_limit_max_mb below memory_limit_mb says where each came from."""
    with pytest.raises(SettingsError) as caught:
        load_settings(given={"memory_limit_max_mb": 100}, environ={"BATCH_MEMORY_LIMIT_MB": "200"})
    assert "--memory-limit-max-mb" in caught.value.message
    assert "BATCH_MEMORY_LIMIT_MB" in caught.value.message


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("key", ["stall_seconds", "startup_seconds", "timeout_seconds", "host_reserve_fraction"])
def test_what_is_not_finite_is_told_with_its_layer(key: str, value: float) -> None:
    """Infinity and NaN pass no setting: a job would refuse them later without saying whose they are."""
    with pytest.raises(SettingsError, match=key):
        load_settings(given={key: value}, environ={})


def test_sharing_the_host_is_the_default_and_may_be_off(config: Path) -> None:
    """Left out, jobs share what the host leaves; YAML's bare `off`, which is false, and the word switch that off."""
    assert load_settings(environ={}).settings.host_budget_mb is None
    config.write_text("host_budget_mb: off\n")
    assert load_settings(config, environ={}).settings.host_budget_mb == "off"
    assert load_settings(environ={"BATCH_HOST_BUDGET_MB": "OFF"}).settings.host_budget_mb == "off"
    assert load_settings(environ={"BATCH_HOST_BUDGET_MB": "4096"}).settings.host_budget_mb == 4096


@pytest.mark.parametrize("key", ["history_path", "ledger_path", "cgroup_parent"])
def test_a_path_is_absolute_and_a_tilde_is_home(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are taken from where the settings are read; an empty one is an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, meant in (("~/x", tmp_path / "home/x"), ("x", tmp_path / "x"), ("/x", Path("/x"))):
        assert getattr(load_settings(given={key: given}, environ={}).settings, key) == meant
    with pytest.raises(SettingsError, match="is no path"):
        load_settings(given={key: " "}, environ={})


@pytest.mark.parametrize("word", ["off", "OFF", "none", "false", "no", "0", False, 0])
def test_the_history_can_be_switched_off_in_many_words(word: object) -> None:
    """Text of the environment as well as YAML's booleans."""
    assert load_settings(given={"history_path": word}, environ={}).settings.history_path == "off"


def test_threads_above_a_bound_that_was_set_are_an_error() -> None:
    """GDAL_NUM_THREADS is an upper bound: four threads above one name both; above the number of cores nobody set one."""
    with pytest.raises(SettingsError) as caught:
        load_settings(given={"threads": 4}, environ={"GDAL_NUM_THREADS": "1"})
    assert "--threads" in caught.value.message
    assert "GDAL_NUM_THREADS" in caught.value.message
    assert caught.value.exit_code == 2


def test_threads_may_exceed_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default bound is nobody's choice: the job's own bound rises to what was asked for."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    resources = resources_of(load_settings(given={"threads": 4}, environ={}))
    assert (resources.threads, resources.threads_max) == (4, 4)
