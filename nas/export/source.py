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
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from string import Template
from typing import Any, NamedTuple

from torch import nn

from nas.core.errors import ExportError
from nas.core.source import is_installed
from nas.network.module import Network, PlacedBlock
from nas.network.trained import Preprocessing

PLAIN_PACKAGES = frozenset({"torch", "safetensors"}) | sys.stdlib_module_names
"""What `model.py` may import."""

_LINE_LENGTH = 100
_PLATFORM = {"nas", "search_spaces"}
_IMPORTS = (
    "from pathlib import Path",
    "import torch",
    "from safetensors import SafetensorError",
    "from safetensors.torch import load_file",
    "from torch import nn",
)
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
        kinds = [type(block) for block in module.placed_blocks]
        roots = [Network, PlacedBlock, *kinds, *(b.module for b in module.placed_blocks)]
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
    kind = type(block).__name__
    line = f"{kind}({', '.join(parts)})"
    if len(line) + 5 <= _LINE_LENGTH and "\n" not in line:
        return line
    return f"{kind}(\n" + "".join(textwrap.indent(f"{p},\n", " " * 8) for p in parts) + "    )"


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


class _Import(NamedTuple):
    """What one name of an import statement stands for; `name` is empty for `import module`."""

    module: str
    name: str
    line: str

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


class _File:
    """The top level of one Python file: imports by the name that they bind, and statements."""

    def __init__(self, name: str) -> None:
        spec = None if name == "__main__" else importlib.util.find_spec(name)
        if spec is None or not (spec.origin or "").endswith(".py"):
            raise ExportError(
                f"{name}: has no source file; write the layers into a file of their own"
            )
        text = Path(str(spec.origin)).read_text("utf-8")
        self.name, self.package, self.lines = name, spec.parent or "", text.splitlines()
        self.imports: dict[str, _Import] = {}
        self.typing_only: set[str] = set()
        self.statements: list[ast.stmt] = []
        self.needed: set[int] = set()
        self.aliases: dict[str, str] = {}
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.If) and "TYPE_CHECKING" in _names(statement.test):
                for each in statement.body:
                    self.typing_only |= self.imported(each).keys()
                    self.imports |= self.imported(each)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                self.imports |= self.imported(statement)
            else:
                self.statements.append(statement)

    def imported(self, statement: ast.AST) -> dict[str, _Import]:
        """Return what an import statement binds; nothing for any other, or for `__future__`."""
        found = {}
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                bound = alias.asname or alias.name.partition(".")[0]
                found[bound] = _Import(alias.name, "", ast.unparse(ast.Import([alias])))
        elif isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            relative = "." * statement.level + (statement.module or "")
            module = importlib.util.resolve_name(relative, self.package)
            for alias in statement.names:
                line = ast.unparse(ast.ImportFrom(module, [alias], 0))
                found[alias.asname or alias.name] = _Import(module, alias.name, line)
        return found

    def binds(self, name: str) -> bool:
        return name in self.imports or any(name in _bound(each) for each in self.statements)

    def texts(self) -> list[str]:
        """Return the needed statements, as they are written."""
        aliases = [f"{bound} = {name}" for bound, name in self.aliases.items()]
        return aliases + [self._text(number) for number in sorted(self.needed)]

    def _text(self, number: int) -> str:
        """Return a statement with its decorators, its comments and the docstring of a constant."""
        statement, *following = self.statements[number : number + 2]
        decorators = getattr(statement, "decorator_list", [])
        first = min(each.lineno for each in [statement, *decorators]) - 1
        while first and self.lines[first - 1].startswith("#"):
            first -= 1
        last = statement.end_lineno
        for each in following if isinstance(statement, ast.Assign | ast.AnnAssign) else ():
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                last = each.end_lineno
        return "\n".join(self.lines[first:last])


class _Definitions:
    """The statements that a network needs, found by following names from file to file."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._owners = dict.fromkeys(_RESERVED, "model.py")
        self._imports: set[str] = set()
        for line in _IMPORTS:
            name = line.rpartition(" ")[2]
            self._import(name, line, "model.py")

    def need_class(self, root: type) -> None:
        """Take a class of a file's top level with everything that it uses."""
        if root.__qualname__ != root.__name__:
            raise ExportError(
                f"module class: got {root.__qualname__}, which is defined inside another class or "
                "function, expected one of the module's top level; move it there"
            )
        self._need(self._file(root.__module__), root.__name__, "model.py")

    def texts(self) -> list[str]:
        """Return the needed statements, file by file, each behind those that it imports."""
        found = [(file.name, file.texts()) for file in self._ordered()]
        return [f"# From {name}\n\n" + "\n\n\n".join(texts) for name, texts in found if texts]

    def import_lines(self) -> list[str]:
        """Return the import statements, whole modules first."""
        return sorted(self._imports, key=lambda line: (line.startswith("from"), line))

    def _ordered(self) -> list[_File]:
        seen: set[str] = set()
        ordered: list[_File] = []

        def visit(file: _File) -> None:
            seen.add(file.name)
            for imported in file.imports.values():
                if imported.module in self._files and imported.module not in seen:
                    visit(self._files[imported.module])
            ordered.append(file)

        for file in self._files.values():
            if file.name not in seen:
                visit(file)
        return ordered

    def _file(self, name: str) -> _File:
        if name not in self._files:
            self._files[name] = _File(name)
        return self._files[name]

    def _claim(self, name: str, owner: str, user: str) -> None:
        former = self._owners.setdefault(name, owner)
        if former != owner:
            raise ExportError(
                f"{user}: the name {name!r} stands for that of {owner} and of {former}, expected "
                "one meaning a name; rename one of them"
            )

    def _import(self, bound: str, line: str, user: str) -> None:
        self._claim(bound, line, user)
        self._imports.add(line)

    def _need(self, file: _File, name: str, user: str) -> None:
        if name in file.imports:
            self._need_import(file, name, user)
            return
        for number, statement in enumerate(file.statements):
            bound = _bound(statement)
            if number in file.needed or name not in (bound or _names(statement)):
                continue
            file.needed.add(number)
            for each in bound:
                self._claim(each, file.name, user)
            self._need_used(file, statement, f"{file.name}.{name}")

    def _need_used(self, file: _File, statement: ast.stmt, user: str) -> None:
        for node in ast.walk(statement):
            for imported in file.imported(node).values():
                if imported.package not in PLAIN_PACKAGES:
                    raise ExportError(
                        f"{user}: imports {imported.module!r} inside a function or condition, "
                        "expected imports at the top of the file"
                    )
        for used in sorted(_names(statement)):
            self._need(file, used, user)

    def _need_import(self, file: _File, bound: str, user: str) -> None:
        imported = file.imports[bound]
        if imported.package in PLAIN_PACKAGES:
            self._import(bound, imported.line, user)
        elif imported.package not in _PLATFORM and is_installed(imported.package):
            if bound not in file.typing_only:
                raise ExportError(
                    f"{user}: imports {imported.module!r}, which model.py cannot; expected layers "
                    "that use torch and the standard library alone; move what needs it elsewhere"
                )
        elif not self._file(imported.module).binds(imported.name):
            raise ExportError(
                f"{user}: uses a whole module ({imported.line}); import the names that it needs"
            )
        else:
            self._need(self._file(imported.module), imported.name, user)
            if bound != imported.name and bound not in file.aliases:
                self._claim(bound, file.name, user)
                file.aliases[bound] = imported.name


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of the top level binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    nodes = [each for each in ast.walk(statement) if isinstance(each, ast.Name)]
    return {each.id for each in nodes if isinstance(each.ctx, ast.Store)}
