"""``python -m tools.count [ROOT]``: how large the package is, and how far its imports reach."""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

from tools.imports import PACKAGE, closure, graph, modules

COMPLEX = 15
"""McCabe's number: more branches than that are named."""

QUESTIONS = re.compile(
    r"\b(planned_shards|recorded_shards|recorded_numbers|superseded_samples|damaged_records"
    r"|pending_work|load_record)\("
)
"""What the ledger answers; before there was one, everybody asked the files."""

ENTRIES = ("cli.relaunch", "cluster.relaunch", "slurm.relaunch", "reading.volumes")


def main() -> None:
    """Print the figures, a line each."""
    parser = argparse.ArgumentParser(prog="python -m tools.count", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    root: Path = parser.parse_args().root
    known = modules(root)
    texts = {name: path.read_text() for name, path in known.items()}
    folders = Counter(str(path.parent.relative_to(root)) for path in known.values())
    folder, most = folders.most_common(1)[0]
    besides = max(number for name, number in folders.items() if not name.endswith("/cli"))
    lines = sum(text.count("\n") for text in texts.values())
    comments = sum(_comments(text) for text in texts.values())
    askers = [name for name, text in texts.items() if QUESTIONS.search(text)]
    code = sum(map(_code, texts.values()))
    print(f"files: {len(known)}, lines: {lines:,}, {code:,} of them without text and imports")
    print(f"largest folder: {folder} with {most} files; besides cli: {besides}")
    imports = graph(root)
    for entry in ENTRIES:
        if f"{PACKAGE}.{entry}" in imports:
            print(f"modules behind {entry}: {len(closure(imports, f'{PACKAGE}.{entry}'))}")
    print(f"modules that ask the files what the ledger answers: {len(askers)}")
    print(f"functions over complexity {COMPLEX}: {_complex(root)}")
    print(f"comment lines: {100 * comments / lines:.1f} %")


def _code(text: str) -> int:
    """Count the lines that hold code: no docstring, comment or import alone, and not blank."""
    tree = ast.parse(text)
    lines = enumerate(text.splitlines(), 1)
    others = {n for n, line in lines if not line.strip() or line.lstrip().startswith("#")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Expr | ast.Import | ast.ImportFrom):
            others |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return text.count("\n") - len(others)


def _comments(text: str) -> int:
    """Count the lines that have a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return len({one.start[0] for one in tokens if one.type == tokenize.COMMENT})


def _complex(root: Path) -> int:
    found = subprocess.run(
        [
            sys.executable, "-m", "ruff", "check", "--isolated", "--select", "C901", "--config",
            f"lint.mccabe.max-complexity={COMPLEX}", "--output-format", "concise",
            "--exit-zero", str(root / PACKAGE),
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    return found.stdout.count("C901")


if __name__ == "__main__":
    main()
