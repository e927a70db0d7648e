"""The source closure of classes: every definition and import that they need, and no other."""

from __future__ import annotations

import ast
import builtins
import copy
import graphlib
import symtable
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nas.core.errors import ExportError
from nas.export.source import DEFINITIONS, SCOPES, Definition, ImportedName, ModuleSource

PLAIN_PACKAGES = frozenset({"torch", "safetensors"}) | sys.stdlib_module_names
"""What an exported module may import."""

_SHARED_MODULES = "nas.network"
_SPACES = "search_spaces"
_PLATFORM = frozenset({"nas", "latency_predictors"})
_MODULE_ATTRIBUTES = frozenset({"__name__", "__file__", "__doc__"})


@dataclass(frozen=True)
class Closure:
    """What a class needs to stand alone.

    Attributes:
        imports: From torch, safetensors and the standard library only.
        sections: Import names of the modules, in an order in which they can be executed, each
            with the source of the definitions taken from it.
    """

    imports: tuple[ImportedName, ...]
    sections: tuple[tuple[str, tuple[str, ...]], ...]


def collect(
    roots: Iterable[type], *, imports: Iterable[ImportedName] = (), reserved: Iterable[str] = ()
) -> Closure:
    """Return the source closure of classes.

    Bases, decorators, defaults, class bodies and function bodies are followed. Annotations are
    not: the names in them that are not carried anyway become `Any`, so the text is to be run
    under `from __future__ import annotations`.

    Args:
        roots: Classes of modules' top levels.
        imports: Names that the exporting module imports itself, `typing.Any` among them.
        reserved: Names that it defines itself.

    Raises:
        ExportError: Something is needed that cannot be carried over; names it and its user.
    """
    roots = list(dict.fromkeys(roots))
    for root in roots:
        if root.__qualname__ != root.__name__:
            raise ExportError(
                f"module class: got {root.__qualname__}, which is defined inside another class or "
                "function, expected one of the module's top level; move it there"
            )
    walk = _Walk([root.__module__ for root in roots])
    for imported in imports:
        walk.claim_import(imported, "model.py")
    for name in reserved:
        walk.claim(name, "model.py", "model.py")
    for root in roots:
        walk.need(root.__module__, root.__name__, "export")
    return walk.closure()


class _Walk:
    """Follows names from definition to definition and remembers what was needed."""

    def __init__(self, root_modules: Iterable[str]) -> None:
        modules = list(root_modules)
        self._own_packages = {module.partition(".")[0] for module in modules}
        self._sources: dict[str, ModuleSource] = {}
        self._carried: dict[tuple[str, str], Definition] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._origins: dict[str, object] = {}
        self._imports: list[ImportedName] = []
        self._needs: dict[str, set[str]] = {module: set() for module in modules}
        self._seen: set[tuple[str, str]] = set()

    def source(self, module: str) -> ModuleSource:
        if module not in self._sources:
            self._sources[module] = ModuleSource(module)
        return self._sources[module]

    def claim(self, name: str, origin: object, user: str) -> None:
        """Reserve a name of the exported module for what `origin` stands for."""
        former = self._origins.setdefault(name, origin)
        if former != origin:
            raise ExportError(
                f"{user}: the name {name!r} stands for {_describe(origin)} and for "
                f"{_describe(former)}, expected one meaning a name; rename one of them"
            )

    def claim_import(self, imported: ImportedName, user: str) -> None:
        """Take over an import, unless another spelling of it is there already."""
        former = self._origins.get(imported.bound)
        same = isinstance(former, ImportedName) and former.value() is imported.value()
        if not same:
            self.claim(imported.bound, imported, user)
        binds_package = not imported.name and imported.bound == imported.package
        if imported not in self._imports and (not same or binds_package):
            self._imports.append(imported)

    def need(self, module: str, name: str, user: str) -> None:
        """Carry over whatever `name` stands for at the top level of `module`."""
        if (module, name) in self._seen:
            return
        self._seen.add((module, name))
        source = self.source(module)
        statements = source.bindings.get(name, [])
        if not statements:
            if not hasattr(builtins, name) and name not in _MODULE_ATTRIBUTES:
                raise ExportError(
                    f"{user}: the name {name!r} has no statement of its own in {module}, expected "
                    "a definition or an import by name; add one"
                )
        elif len(statements) == len(source.imports.get(name, ())):
            for imported in source.imports[name]:
                self._follow(source, imported, user)
        elif len(statements) == 1 and isinstance(statements[0], DEFINITIONS):
            self._carry(source, name, statements[0], user)
        else:
            lines = ", ".join(str(statement.lineno) for statement in statements)
            raise ExportError(
                f"{user}: {module}.{name} is bound or changed by line {lines} of its module, "
                "expected one plain statement; define it once, without conditions"
            )

    def _follow(self, source: ModuleSource, imported: ImportedName, user: str) -> None:
        if imported.package in PLAIN_PACKAGES:
            self.claim_import(imported, user)
            return
        self._check_carriable(imported, user)
        self._needs.setdefault(source.name, set()).add(imported.module)
        self.need(imported.module, imported.name, user)
        if imported.bound != imported.name:
            self.claim(imported.bound, (source.name, imported.bound), user)
            self._aliases.setdefault(source.name, {})[imported.bound] = imported.name

    def _check_carriable(self, imported: ImportedName, user: str) -> None:
        name = f"{imported.module}.{imported.name}".rstrip(".")
        shared = f"{imported.module}.".startswith(f"{_SHARED_MODULES}.")
        if imported.package in _PLATFORM and not shared:
            raise ExportError(
                f"{user}: uses {name!r}, a part of the platform, which an exported network cannot "
                f"take along; write what it needs in the network's own file or in {_SHARED_MODULES}"
            )
        if imported.package not in {*self._own_packages, _SPACES, *_PLATFORM}:
            file = getattr(sys.modules.get(imported.package), "__file__", None)
            if file is None or {"site-packages", "dist-packages"} & set(Path(file).parts):
                raise ExportError(
                    f"{user}: uses {name!r} of the third-party package {imported.package!r}, "
                    "expected torch or the standard library; write it with these"
                )
        if not imported.name or isinstance(imported.value(), ModuleType):
            raise ExportError(
                f"{user}: uses the module {name!r}, expected names of it; write "
                f"'from {name} import ...' with the names that are used"
            )

    def _carry(self, source: ModuleSource, name: str, definition: Definition, user: str) -> None:
        user = f"{user} > {source.name}.{name}"
        self.claim(name, (source.name, name), user)
        self._carried[source.name, name] = definition
        for node in ast.walk(definition):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for imported in source.imported_names(node):
                    self._check_local_import(imported, user)
        for needed in sorted(_global_names(definition)):
            self.need(source.name, needed, user)

    def _check_local_import(self, imported: ImportedName, user: str) -> None:
        if imported.package not in PLAIN_PACKAGES:
            raise ExportError(
                f"{user}: imports {imported.module!r} inside a function, expected torch or the "
                "standard library; import it at the top of the file, by name"
            )

    def closure(self) -> Closure:
        """Return everything that was needed, in an order in which it can be executed."""
        try:
            order = list(graphlib.TopologicalSorter(self._needs).static_order())
        except graphlib.CycleError as error:
            modules = " and ".join(sorted(set(error.args[1])))
            raise ExportError(
                f"{modules} import each other, expected one direction; move what both need "
                "into a third module"
            ) from error
        sections = [(module, tuple(self._section(module))) for module in order]
        return Closure(
            imports=tuple(sorted(self._imports)),
            sections=tuple((module, texts) for module, texts in sections if texts),
        )

    def _section(self, module: str) -> Iterator[str]:
        for bound, name in self._aliases.get(module, {}).items():
            yield f"{bound} = {name}"
        carried = {d.lineno: d for (owner, _), d in self._carried.items() if owner == module}
        source = self.source(module)
        for _, definition in sorted(carried.items()):
            annotations = [a for a in _annotations(definition) if not self._annotate(source, a)]
            yield source.text(definition, [(annotation, "Any") for annotation in annotations])

    def _annotate(self, source: ModuleSource, annotation: ast.expr) -> bool:
        """Import what an annotation needs; return whether all of its names are known then."""
        names = {node.id for node in _annotation_nodes(annotation) if isinstance(node, ast.Name)}
        for name in sorted(names):
            imports = source.imports.get(name) or source.typing_imports.get(name) or []
            if imports and all(imported.package in PLAIN_PACKAGES for imported in imports):
                for imported in imports:
                    self.claim_import(imported, source.name)
            elif (source.name, name) not in self._seen and (name in source.bindings or imports):
                return False
        return True


def _describe(origin: object) -> str:
    if isinstance(origin, ImportedName):
        return f"an import from {origin.module}"
    if isinstance(origin, tuple):
        return f"a definition in {origin[0]}"
    return f"a part of {origin}"


def _annotations(definition: Definition) -> Iterator[ast.expr]:
    for node in ast.walk(definition):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def _annotation_nodes(annotation: ast.expr) -> Iterator[ast.AST]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                yield from ast.walk(ast.parse(node.value, mode="eval"))
            except SyntaxError:  # the text of a Literal or Annotated, which names nothing
                continue
        yield node


class _Unannotated(ast.NodeTransformer):
    """Takes the annotations out of a definition."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        return self.generic_visit(node)


def _global_names(definition: Definition) -> set[str]:
    """Return the global names that a definition reads, by Python's own scoping rules."""
    bare = _Unannotated().visit(copy.deepcopy(definition))
    top = symtable.symtable(ast.unparse(bare), "<definition>", "exec")
    names = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    pending = list(top.get_children())
    while pending:
        table = pending.pop()
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
        pending += table.get_children()
    own = definition.name if isinstance(definition, SCOPES) else ""
    return names - {own}
