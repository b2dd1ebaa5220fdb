"""The YAML file of settings, read strictly; what its keys and values mean is `settings.py`'s. Imported where there is a file."""

from pathlib import Path
from typing import Any

import yaml

from lib.errors import SettingsError


def read_settings_file(config: str | Path) -> dict[str, Any]:
    """Keys and values of a YAML file.

    Raises:
        SettingsError: a missing or malformed file, a key that is given twice.
    """

    def unusable(problem: str, hint: str = "write lines such as `memory_limit_mb: 1024`") -> SettingsError:
        return SettingsError(f"settings file {config}{problem}", hint=hint, layer="file")

    try:
        content = yaml.load(Path(config).read_text(encoding="utf-8"), _OnceLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise unusable(f": {error.strerror}", "--config names a YAML file") from error
    except UnicodeDecodeError as error:
        raise unusable(" is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it does not parse"
        raise unusable(f" is not YAML{where}: {problem}") from error
    if not isinstance(content, dict | None):
        raise unusable(f" holds a {type(content).__name__}, not keys and values")
    return {str(key): value for key, value in (content or {}).items()}


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
