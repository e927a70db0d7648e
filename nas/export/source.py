"""`model.py`: a network as one plain PyTorch file that imports nothing of this project.

It holds the definitions of the network's layers as they are written, the network as a list of
blocks, and `load` and `preprocess`. Layers are followed by name: a statement of a module's top
level is taken as a whole if a name that it binds is needed.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pprint import pformat
from string import Template
from typing import Any

from torch import nn

from nas.core.errors import ExportError
from nas.network.module import Network, PlacedBlock
from nas.network.trained import Preprocessing

PLAIN_PACKAGES = frozenset({"torch", "safetensors"}) | sys.stdlib_module_names
"""What `model.py` may import."""

_LINE_LENGTH = 100
_INSTALLED = {"site-packages", "dist-packages"}
_IMPORTS = """\
from pathlib import Path
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
"""
_RESERVED = ("BLOCKS", "ARGUMENTS", "PIXEL_SCALE", "PIXEL_MEAN", "PIXEL_STD", "load", "preprocess")

_FUNCTIONS = Template('''\
def load(path: str | Path | None = None) -> nn.Module:
    """Build the network and load its weights.

    Args:
        path: The weights; `model.safetensors` beside this file by default.

    Returns:
        The network in evaluation mode: float32 (N, $channels, H, W) to outputs.

    Raises:
        FileNotFoundError: There are no weights at `path`.
        ValueError: The file is damaged.
        RuntimeError: The weights are those of another network.
    """
    path = Path(path) if path is not None else Path(__file__).with_name("model.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the weights of this network")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        message = f"{path}: damaged ({error}); expected safetensors; copy the file again"
        raise ValueError(message) from error
    network = $network
    network.load_state_dict(weights, strict=True)
    return network.eval()


def preprocess(pixels: torch.Tensor) -> torch.Tensor:
    """Turn pixels, uint8 (N, $channels, H, W), into the network's input, float32 of that shape.

    Raises:
        ValueError: The tensor has another type or shape.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != len(PIXEL_MEAN):
        got = f"{pixels.dtype} {tuple(pixels.shape)}"
        raise ValueError(f"pixels: got {got}, expected torch.uint8 (N, $channels, H, W)")
    mean = torch.tensor(PIXEL_MEAN, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(PIXEL_STD, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.float() / PIXEL_SCALE - mean) / std
''')


def module_source(module: nn.Module, *, header: str, preprocessing: Preprocessing) -> str:
    """Return the text of a Python file that rebuilds a network.

    Args:
        module: A `Network`, or a module whose class stands at the top level of its file and whose
            attribute `arguments` holds the keyword arguments that it was built with.
        header: Text of the comment at the top.
        preprocessing: What `preprocess` does.

    Raises:
        ExportError: The module needs something that cannot be carried over, or its arguments
            cannot be written as Python literals.
    """
    if isinstance(module, Network):
        roots = [Network, PlacedBlock, *(block.module for block in module.placed_blocks)]
        blocks = "".join(f"    {_block(block)},\n" for block in module.placed_blocks)
        built, network = f"BLOCKS = (\n{blocks})", "Network(BLOCKS)"
    elif isinstance(getattr(module, "arguments", None), Mapping):
        roots = [type(module)]
        name = type(module).__name__
        built = f"ARGUMENTS = {_literal(dict(module.arguments), name)}"  # type: ignore[arg-type]
        network = f"{name}(**ARGUMENTS)"
    else:
        raise ExportError(
            f"{type(module).__name__}: cannot be rebuilt by model.py; expected a "
            "nas.network.module.Network, or a module with the attribute `arguments`"
        )
    linked = _Definitions()
    for root in roots:
        linked.need_class(root)
    comment = "\n".join(
        textwrap.wrap(header, _LINE_LENGTH, initial_indent="# ", subsequent_indent="# ")
    )
    parts = [
        *linked.texts(),
        built,
        f"PIXEL_SCALE = {preprocessing.scale!r}\n"
        f"PIXEL_MEAN = {preprocessing.mean!r}\n"
        f"PIXEL_STD = {preprocessing.std!r}",
        _FUNCTIONS.substitute(network=network, channels=len(preprocessing.mean)),
    ]
    head = [comment, "from __future__ import annotations", "\n".join(linked.import_lines())]
    return "\n\n".join(head) + "\n\n" + "\n\n\n".join(parts)


def _block(block: PlacedBlock) -> str:
    """Return the expression that makes a block, indented by four columns."""
    what = f"block {block.name}, arguments of {block.module.__name__}"
    fields = {
        "name": repr(block.name),
        "module": block.module.__name__,
        "input_shapes": repr(block.input_shapes),
        "arguments": _literal(dict(block.arguments), what),
        "inputs": repr(block.inputs),
        "output_shape": repr(block.output_shape),
        "auxiliary": repr(block.auxiliary),
    }
    parts = [f"{name}={text}" for name, text in fields.items()]
    line = f"PlacedBlock({', '.join(parts)})"
    if len(line) + 5 <= _LINE_LENGTH and "\n" not in line:
        return line
    return "PlacedBlock(\n" + "".join(textwrap.indent(f"{p},\n", " " * 8) for p in parts) + "    )"


def _literal(value: Any, what: str) -> str:
    text = pformat(value, width=_LINE_LENGTH - 24, sort_dicts=False)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise ExportError(
            f"{what}: got {value!r}, expected Python literals: numbers, texts, lists and mappings"
        )
    return text


@dataclass(frozen=True)
class _Import:
    """One name that an import statement binds; `name` is empty for `import module`."""

    module: str
    name: str
    bound: str
    typing_only: bool = False

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def line(self) -> str:
        if self.name:
            alias = "" if self.bound == self.name else f" as {self.bound}"
            return f"from {self.module} import {self.name}{alias}"
        alias = "" if self.bound == self.package else f" as {self.bound}"
        return f"import {self.module}{alias}"


@dataclass
class _Module:
    """The top level of one file, and which of its statements are needed."""

    name: str
    needed: set[int] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)

    @cached_property
    def spec(self) -> Any:
        found = None if self.name == "__main__" else importlib.util.find_spec(self.name)
        if found is None or not (found.origin or "").endswith(".py"):
            raise ExportError(
                f"{self.name}: has no source file; write the layers into a file of their own"
            )
        return found

    @cached_property
    def text(self) -> str:
        return Path(self.spec.origin).read_text("utf-8")

    @cached_property
    def statements(self) -> list[ast.stmt]:
        return ast.parse(self.text).body

    @cached_property
    def imports(self) -> dict[str, _Import]:
        """Of the top level, those for annotations included, by the name that they bind."""
        found = {}
        for statement in self.statements:
            typing_only = isinstance(statement, ast.If) and "TYPE_CHECKING" in _names(
                statement.test
            )
            inner = statement.body if isinstance(statement, ast.If) and typing_only else [statement]
            for each in inner:
                for imported in self.imported(each, typing_only):
                    found[imported.bound] = imported
        return found

    def imported(self, statement: ast.AST, typing_only: bool = False) -> Iterator[_Import]:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield _Import(alias.name, "", bound, typing_only)
        elif isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            module = statement.module or ""
            if statement.level:
                relative = "." * statement.level + module
                module = importlib.util.resolve_name(relative, self.spec.parent)
            for alias in statement.names:
                yield _Import(module, alias.name, alias.asname or alias.name, typing_only)

    def is_definition(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in _names(statement.test):
            return False
        return not isinstance(statement, ast.Import | ast.ImportFrom)

    def source(self, number: int) -> str:
        """Return a statement with its decorators, its comments and the docstring of a constant."""
        lines, statement = self.text.splitlines(), self.statements[number]
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(each.lineno for each in decorators)]) - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        last, following = statement.end_lineno, self.statements[number + 1 : number + 2]
        is_constant = isinstance(statement, ast.Assign | ast.AnnAssign)
        for each in following if is_constant else ():
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                last = each.end_lineno
        return "\n".join(lines[first:last])


class _Definitions:
    """Follows names from statement to statement."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module] = {}
        self._owners: dict[str, str] = dict.fromkeys(_RESERVED, "model.py")
        self._imports: dict[str, _Import] = {}
        own = _Module("model.py")
        for statement in ast.parse(_IMPORTS).body:
            for imported in own.imported(statement):
                self._imports[imported.bound] = imported
                self._claim(imported.bound, imported.line(), "model.py")

    def need_class(self, root: type) -> None:
        """Take a class of a module's top level with everything that it uses."""
        if root.__qualname__ != root.__name__:
            raise ExportError(
                f"module class: got {root.__qualname__}, which is defined inside another class or "
                "function, expected one of the module's top level; move it there"
            )
        self._need(root.__module__, root.__name__, "model.py")

    def texts(self) -> list[str]:
        """Return the needed statements, module by module, each behind those that it imports."""
        texts = []
        for module in self._ordered():
            parts = [module.source(i) for i in sorted(module.needed)]
            parts = [f"{bound} = {name}" for bound, name in module.aliases.items()] + parts
            if parts:
                texts.append(f"# From {module.name}\n\n" + "\n\n\n".join(parts))
        return texts

    def import_lines(self) -> list[str]:
        """Return the import statements, whole modules first."""
        lines = sorted(imported.line() for imported in self._imports.values())
        return sorted(set(lines), key=lambda line: (line.startswith("from"), line))

    def _ordered(self) -> Iterator[_Module]:
        done: set[str] = set()

        def visit(module: _Module) -> Iterator[_Module]:
            if module.name in done:
                return
            done.add(module.name)
            for imported in module.imports.values():
                if imported.module in self._modules:
                    yield from visit(self._modules[imported.module])
            yield module

        for module in list(self._modules.values()):
            yield from visit(module)

    def _claim(self, name: str, owner: str, user: str) -> None:
        former = self._owners.setdefault(name, owner)
        if former != owner:
            raise ExportError(
                f"{user}: the name {name!r} stands for that of {owner} and of {former}, expected "
                "one meaning a name; rename one of them"
            )

    def _need(self, module_name: str, name: str, user: str) -> None:
        module = self._modules.setdefault(module_name, _Module(module_name))
        if name in module.imports:
            self._need_import(module, module.imports[name], user)
            return
        for number, statement in enumerate(module.statements):
            if not module.is_definition(statement) or number in module.needed:
                continue
            if name in _bound(statement) or (not _bound(statement) and name in _names(statement)):
                module.needed.add(number)
                for bound in _bound(statement):
                    self._claim(bound, module_name, user)
                self._need_used(module, statement, f"{module_name}.{name}")

    def _need_used(self, module: _Module, statement: ast.stmt, user: str) -> None:
        for node in ast.walk(statement):
            for imported in module.imported(node):
                if imported.package not in PLAIN_PACKAGES:
                    raise ExportError(
                        f"{user}: imports {imported.module!r} inside a function or condition, "
                        "expected imports at the top of the file"
                    )
        for used in sorted(_names(statement)):
            self._need(module.name, used, user)

    def _need_import(self, module: _Module, imported: _Import, user: str) -> None:
        if imported.package in PLAIN_PACKAGES:
            self._claim(imported.bound, imported.line(), user)
            self._imports[imported.bound] = imported
        elif not _is_own(imported.package):
            if not imported.typing_only:
                raise ExportError(
                    f"{user}: imports {imported.module!r}, which model.py cannot; expected layers "
                    "that use torch and the standard library alone; move what needs it elsewhere"
                )
        elif not imported.name or _is_module(f"{imported.module}.{imported.name}"):
            raise ExportError(
                f"{user}: uses a whole module ({imported.line()}); import the names that it needs"
            )
        else:
            self._need(imported.module, imported.name, user)
            if imported.bound != imported.name and imported.bound not in module.aliases:
                self._claim(imported.bound, module.name, user)
                module.aliases[imported.bound] = imported.name


def _is_own(package: str) -> bool:
    """Return whether a package is source code of this project or of the user."""
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    own = package in {"nas", "search_spaces"}
    return own or not any(_INSTALLED.intersection(Path(place).parts) for place in places)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of the top level binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    nodes = [each for each in ast.walk(statement) if isinstance(each, ast.Name)]
    return {each.id for each in nodes if isinstance(each.ctx, ast.Store)}
