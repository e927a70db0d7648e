"""One module's source: which statement binds which name, and the text of that statement."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nas.core.errors import ExportError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, order=True)
class ImportedName:
    """One name that an import statement binds.

    Attributes:
        module: Absolute name of the module.
        name: What is imported from it; empty in `import module`.
        bound: The name that the statement binds.
    """

    module: str
    name: str
    bound: str

    @property
    def package(self) -> str:
        """Top-level package of the module."""
        return self.module.partition(".")[0]

    def value(self) -> object:
        """Return what the name stands for."""
        if self.name:
            module = importlib.import_module(self.module)
            if hasattr(module, self.name):
                return getattr(module, self.name)
            return importlib.import_module(f"{self.module}.{self.name}")
        whole = self.bound == self.package
        return importlib.import_module(self.package if whole else self.module)


class ModuleSource:
    """The source of an imported module, indexed by the names that its top level binds.

    Attributes:
        name: Import name of the module.
        bindings: By name, the top-level statements that bind or change it.
        imports: By name, what the top-level imports bind it to.
        typing_imports: The same for imports below `if TYPE_CHECKING`.
    """

    def __init__(self, name: str) -> None:
        """Read the module `name`.

        Raises:
            ExportError: It has no source to read.
        """
        module = importlib.import_module(name)
        try:
            text = inspect.getsource(module)
        except (OSError, TypeError) as error:
            raise ExportError(
                f"module {name}: got no source ({error}), expected a Python file; "
                "define the network in a file"
            ) from error
        self.name = name
        self._package = module.__package__ or ""
        self._data = text.encode()
        self._line_starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))
        self._body = ast.parse(text).body
        self.bindings: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[ImportedName]] = {}
        self.typing_imports: dict[str, list[ImportedName]] = {}
        for statement in self._body:
            self._index(statement)

    def _index(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for imported in self.imported_names(statement):
                self.imports.setdefault(imported.bound, []).append(imported)
                self.bindings.setdefault(imported.bound, []).append(statement)
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            for child in statement.body:
                if isinstance(child, ast.Import | ast.ImportFrom):
                    for imported in self.imported_names(child):
                        self.typing_imports.setdefault(imported.bound, []).append(imported)
        else:
            # A call such as torch.manual_seed(0) does not make torch a thing of this module.
            called = isinstance(statement, ast.Expr)
            for name in set(_bound_names(statement)) - (set(self.imports) if called else set()):
                self.bindings.setdefault(name, []).append(statement)

    def imported_names(self, statement: ast.Import | ast.ImportFrom) -> list[ImportedName]:
        """Return the names that an import statement of this module binds."""
        if isinstance(statement, ast.Import):
            return [
                ImportedName(alias.name, "", alias.asname or alias.name.partition(".")[0])
                for alias in statement.names
            ]
        relative = "." * statement.level + (statement.module or "")
        module = importlib.util.resolve_name(relative, self._package)
        return [
            ImportedName(module, alias.name, alias.asname or alias.name)
            for alias in statement.names
        ]

    def text(self, definition: Definition, replaced: Sequence[tuple[ast.expr, str]] = ()) -> str:
        """Return a definition as written, with its comments and the docstring of a constant.

        Args:
            definition: A top-level statement of this module.
            replaced: Expressions inside it, each with the text that takes its place.
        """
        first = definition.lineno
        if isinstance(definition, SCOPES):
            first = min([first, *(decorator.lineno for decorator in definition.decorator_list)])
        while first > 1 and self._line(first - 1).startswith(b"#"):
            first -= 1
        start, end = self._line_starts[first - 1], self._line_starts[self._last_line(definition)]
        data = self._data[start:end]
        spans = [(self._offset(node), self._offset(node, end=True), new) for node, new in replaced]
        for low, high, new in sorted(spans, reverse=True):
            data = data[: low - start] + new.encode() + data[high - start :]
        return data.decode().strip("\n")

    def _last_line(self, definition: Definition) -> int:
        position = self._body.index(definition)
        following = self._body[position + 1] if position + 1 < len(self._body) else None
        constant = not isinstance(definition, SCOPES)
        if constant and following is not None and is_text(following):
            return following.end_lineno or following.lineno
        return definition.end_lineno or definition.lineno

    def _line(self, number: int) -> bytes:
        return self._data[self._line_starts[number - 1] : self._line_starts[number]]

    def _offset(self, node: ast.expr, *, end: bool = False) -> int:
        line, column = node.lineno, node.col_offset
        if end and node.end_lineno is not None and node.end_col_offset is not None:
            line, column = node.end_lineno, node.end_col_offset
        return self._line_starts[line - 1] + column


def is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a bare string, such as the docstring of a constant."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement binds or changes in place."""
    if isinstance(statement, SCOPES):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, SCOPES):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            if not isinstance(node.ctx, ast.Load):
                yield from _root_name(node)
        elif isinstance(node, ast.Expr):
            called = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(called, ast.Attribute):
                yield from _root_name(called)


def _root_name(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id
