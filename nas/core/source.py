"""The code that classes are made of, as text that comments and formatting do not change."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

_PLATFORM = {"nas", "latency_predictors"}
_LIBRARIES = {"site-packages", "dist-packages"}


@lru_cache(maxsize=64)
def source_of(cls: type, parts: frozenset[type] = frozenset()) -> tuple[str, ...]:
    """Return the code of a class, of its parts, and of what their modules import.

    This is the whole text of the modules in which they and their base classes stand, and, in
    turn, of the modules that these import: those of the class's own package, of `search_spaces`,
    and of the user's code, which is neither installed nor a part of Python or of `nas`. Of a class
    in a notebook, or in the script that runs, it is the class's own text: what the class calls
    outside of it does not count.

    Args:
        cls: Its package counts wherever it is installed.
        parts: Further classes.

    Returns:
        Texts without comments, blank lines and docstrings, sorted.
    """
    bases = {base for each in (cls, *parts) for base in each.__mro__}
    own = {base.__module__.partition(".")[0] for base in cls.__mro__}
    own = (own - sys.stdlib_module_names - _PLATFORM) | {"search_spaces"}
    found: dict[str, str] = {}
    waiting = {base.__module__ for base in bases}
    while waiting:
        name = waiting.pop()
        if name in found or not _counts(name, own):
            continue
        spec = _spec(name)
        if spec is not None and (spec.origin or "").endswith(".py"):
            tree = ast.parse(Path(str(spec.origin)).read_bytes())
            waiting.update(_imports(tree, spec.parent or ""))
            found[name] = _plain(tree)
        else:
            texts = [_class_text(base) for base in bases if base.__module__ == name]
            found[name] = "\n".join(sorted(texts))
    return tuple(sorted(found.values()))


def _counts(name: str, own: set[str]) -> bool:
    """Return whether a module is a part of what tells the class from others."""
    top = name.partition(".")[0]
    if top in own or top == "__main__":
        return True
    if top in _PLATFORM or top in sys.stdlib_module_names:
        return False
    return not is_installed(top) and (_spec(top) is not None or top in sys.modules)


def is_installed(package: str) -> bool:
    """Return whether a package lies where pip installs, so that it is not the user's own code."""
    spec = _spec(package)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(_LIBRARIES.intersection(Path(place).parts) for place in places)


def _spec(name: str) -> ModuleSpec | None:
    # What is run as a program also holds what the program does with the class.
    if name == "__main__":
        return None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # no module, or one without a file
        return None


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Return the names of all modules that a module may import, their packages included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(base, package) if node.level else base
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            steps = name.split(".")
            yield from (".".join(steps[:end]) for end in range(1, len(steps) + 1))


def _plain(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_docstring(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _class_text(cls: type) -> str:
    """Return the text of a class, or of its methods where Python finds only these (notebooks)."""
    members = [getattr(v, "fget", None) or getattr(v, "__func__", v) for v in vars(cls).values()]
    for group in ([cls], [member for member in members if inspect.isfunction(member)]):
        texts = []
        for each in group:
            try:
                text = textwrap.dedent(inspect.getsource(each))
                texts.append(_plain(ast.parse(text)))
            except (OSError, TypeError, SyntaxError):
                continue  # what dataclass has written has no source
        if texts:
            return "\n".join(texts)
    return cls.__qualname__
