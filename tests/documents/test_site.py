"""The site of the documents builds without a warning, and its links lead where the files' do."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.pages import pages, turned

ROOT = Path(__file__).resolve().parents[2]


def test_links_are_turned_to_pages_of_the_site() -> None:
    text = "[a](../benchmarks/RESULTS.md#x), [b](safety.md), [c](../LICENSE), [d](https://e.org)"
    assert turned(text, "docs/design.md") == (
        "[a](benchmarks/RESULTS.md#x), [b](safety.md), c, [d](https://e.org)"
    )
    assert turned("[a](../../README.md)", "docs/zh/guide.md") == "[a](../index.md)"
    assert turned("[a](docs/zh/guide.md#b)", "README.zh-CN.md") == "[a](guide.md#b)"
    assert turned("![a](docs/preview.png)", "README.md") == "![a](preview.png)"
    code = "```python\nx[a](b.md)\n```"
    assert turned(f"[b](docs/json.md)\n{code}\n", "README.md") == f"[b](json.md)\n{code}\n"


def test_every_document_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r": (\S+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(listed) == sorted(pages().values())


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install '.[docs]'")
    built = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    for page in pages().values():
        text = (built / page).with_suffix(".html").read_text()
        # Nobody who reads the site is reported to another host.
        assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"?https?:[^>]*>", text)
