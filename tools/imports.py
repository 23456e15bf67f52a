"""The import graph of the package, read from the source; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

PACKAGE = "ctrate_convert"


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the package below the repository ``root`` by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(root: Path) -> dict[str, frozenset[str]]:
    """Return by module those that it imports, inside functions too; not for type checking only."""
    known = modules(root)
    return {name: frozenset(_imports(path, known.keys()) - {name}) for name, path in known.items()}


def closure(imports: Mapping[str, Set[str]], module: str) -> frozenset[str]:
    """Return all modules that importing ``module`` may load in the end, itself included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports[name]
    return frozenset(found)


def _imports(path: Path, known: Set[str]) -> set[str]:
    found: set[str] = set()
    for node in _executed(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found |= {full if full in known else node.module} & known
    return found


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Give every node but those below ``if TYPE_CHECKING``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _executed(child)
