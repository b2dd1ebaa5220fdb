"""YAML files, read strictly: of settings, whose meaning is `settings.py`'s, and of classes. Imported where there is one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lib.errors import SettingsError, SwathError, UsageError


def read_settings_file(config: str | Path) -> dict[str, Any]:
    """Keys and values of a YAML file.

    Raises:
        SettingsError: a missing or malformed file, a key that is given twice.
    """

    def unusable(problem: str, hint: str = "write lines such as `memory_limit_mb: 1024`") -> SettingsError:
        return SettingsError(f"settings file {config}{problem}", hint=hint, layer="file")

    content = _content(config, _OnceLoader, unusable, "--config names a YAML file")
    return {str(key): value for key, value in content.items()}


def read_table(path: str) -> str:
    """A table of classes, one `range: value` a line, as `--table` takes it.

    Raises:
        UsageError: a missing or malformed file, a range that is given twice.
    """

    def unusable(problem: str, hint: str = "write lines such as `0:1000: 1`") -> UsageError:
        return UsageError(f"--table {path}{problem}", hint=hint)

    hint = "--table takes ranges such as 0:1000=1,1000:5000=2, or a YAML file"
    content = _content(path, _TextLoader, unusable, hint)
    if odd := next((key for key, value in content.items() if not isinstance(value, str)), None):
        raise unusable(f" gives {odd} no single value")
    return ",".join(f"{key}={value}" for key, value in content.items())


def read_kernel(path: str) -> str:
    """A kernel, a list of rows of weights, as `--kernel` takes it.

    Raises:
        UsageError: a missing or malformed file.
    """

    def unusable(problem: str, hint: str = "write rows such as `- [0, 1, 0]`") -> UsageError:
        return UsageError(f"--kernel {path}{problem}", hint=hint)

    rows = _parsed(path, _TextLoader, unusable, "--kernel takes rows such as 0 1 0; 1 -4 1; 0 1 0, or a YAML file")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise unusable(" holds no list of rows")
    if odd := next((each for row in rows for each in row if not isinstance(each, str)), None):
        raise unusable(f" has {odd} for a weight")
    return "; ".join(" ".join(row) for row in rows)


def _content(
    path: str | Path, loader: type[Any], unusable: Callable[..., SwathError], missing_hint: str
) -> dict[Any, Any]:
    content = _parsed(path, loader, unusable, missing_hint)
    if not isinstance(content, dict | None):
        raise unusable(f" holds a {type(content).__name__}, not keys and values")
    return content or {}


def _parsed(path: str | Path, loader: type[Any], unusable: Callable[..., SwathError], missing_hint: str) -> Any:
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise unusable(f": {error.strerror}", missing_hint) from error
    except UnicodeDecodeError as error:
        raise unusable(" is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it does not parse"
        raise unusable(f" is not YAML{where}: {problem}") from error


class _OnceLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML takes the last in silence, and a key that is a list or a map."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as SafeLoader makes it."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = f"a {key.id} cannot be a key"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _TextLoader(_OnceLoader):
    """All keys and values are texts: `10:50` would be a number of base 60."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name and kind
