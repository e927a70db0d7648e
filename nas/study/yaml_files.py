"""YAML files of settings: read safely, or refused in one line that names the file and the line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.core.errors import HwnasError, first_line, one_line

MOST_VALUES = 20_000
"""Of one file; what an alias repeats counts again."""

_TOO_MANY = f"stands for more than {MOST_VALUES} values, aliases followed"

_TAGS = {
    kind: {f"tag:yaml.org,2002:{name}" for name in names}
    for kind, names in {
        yaml.ScalarNode: ("str", "int", "float", "bool", "null", "value", "merge"),
        yaml.SequenceNode: ("seq",),
        yaml.MappingNode: ("map",),
    }.items()
}
_CONVERTED = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool")}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Takes a date for a text, as OmegaConf does."""

    yaml_implicit_resolvers: ClassVar = {
        first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path) -> DictConfig:
    """Return the settings in a YAML file; what they interpolate is not resolved.

    Raises:
        HwnasError: It cannot be read, is not UTF-8 or no YAML, repeats a key, names a class of
            Python, or holds more than `MOST_VALUES` values.
    """
    text = read_text(path)
    try:
        # A list or a section has two events; without this a long file is read for minutes.
        for number, event in enumerate(yaml.parse(text, _Loader)):
            if number > 2 * MOST_VALUES:
                raise _at_line(path, event.start_mark.line, _TOO_MANY)
        node = yaml.compose(text, _Loader)
        if node is not None:
            if not isinstance(node, yaml.MappingNode):
                raise _at_line(path, node.start_mark.line, "got no settings, expected NAME: VALUE")
            _count(path, node, _Loader(""), {})
        return cast("DictConfig", OmegaConf.load(io.StringIO(text)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark is not None else 0
        raise _at_line(path, line, f"{error.problem}, expected YAML") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        raise _at_line(path, 0, first_line(error)) from error
    except RecursionError as error:
        raise _at_line(path, 0, "is nested too deeply") from error


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        HwnasError: It cannot be read or is in another encoding.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise HwnasError(f"{path}: is no regular file")
        content = path.read_bytes()
        if content.startswith(b"\xef\xbb\xbf"):
            raise _at_line(path, 0, "begins with a byte order mark; save it as UTF-8 without one")
        return content.decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n")
        raise _at_line(path, line, "is not in UTF-8; save it in that encoding") from error
    except OSError as error:
        raise HwnasError(f"{path}: cannot be read ({error.strerror})") from error


def _count(
    path: Path, node: yaml.Node, loader: yaml.SafeLoader, counted: dict[yaml.Node, int]
) -> int:
    """Return how many values a node stands for, aliases followed; refuse what no setting needs."""
    line = node.start_mark.line
    if node.tag not in _TAGS[type(node)]:
        raise _at_line(path, line, f"got the tag {node.tag}, expected plain values")
    if node not in counted:
        counted[node] = MOST_VALUES + 1  # what an alias within itself stands for
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            seen = set[str]()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    at = key.start_mark.line
                    raise _at_line(path, at, f"repeats the setting {key.value!r}; keep one of them")
                seen.add(key.value)
            parts = [part for pair in node.value for part in pair]
        if node.tag in _CONVERTED:
            try:
                loader.construct_object(node)
            except (ValueError, LookupError, ArithmeticError) as error:
                got, kind = one_line(node.value, 40), node.tag.rpartition(":")[2]
                raise _at_line(path, line, f"got {got!r}, expected {kind}") from error
        counted[node] = 1 + sum(_count(path, part, loader, counted) for part in parts)
    if counted[node] > MOST_VALUES:
        raise _at_line(path, line, _TOO_MANY)
    return counted[node]


def _at_line(path: Path, line: int, problem: str) -> HwnasError:
    return HwnasError(f"{path}:{line + 1}: {problem}")
