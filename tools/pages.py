"""Hooks of mkdocs: pages that lie beside docs/, and links between all pages, as the site has them.

In the repository a link names a file. On the site that file may be another page, or none: then its
words stay and the link goes.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

BESIDE = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""The pages of the site that lie beside docs/; those of the benchmarks keep their names."""

_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """Return the page on the site of each document in the repository."""
    documents = sorted((ROOT / "docs").rglob("*.md"))
    results = sorted((ROOT / "benchmarks").glob("*.md"))
    return {
        **BESIDE,
        **{f"docs/{name}": name for name in (_name(one, ROOT / "docs") for one in documents)},
        **{name: name for name in (_name(one, ROOT) for one in results)},
    }


def turned(text: str, document: str) -> str:
    """Return the text of ``document`` with links to other documents as the site has them."""
    known = {**_pictures(), **pages()}
    here = posixpath.dirname(known[document])

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found.groups(default="")
        page = known.get(posixpath.normpath(posixpath.join(posixpath.dirname(document), target)))
        return f"[{words}]({posixpath.relpath(page, here or '.')}{anchor})" if page else words

    # Pieces of code stay as they are: a link there is none.
    codes = _CODE.findall(text)
    proses = _CODE.split(text)
    rest = [*codes, ""]
    return "".join(_LINK.sub(link, one) + code for one, code in zip(proses, rest, strict=True))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside docs/."""
    from mkdocs.structure.files import File

    for document, page in pages().items():
        if not document.startswith("docs/"):
            files.append(File.generated(config, page, content=(ROOT / document).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of one page."""
    documents = {site: document for document, site in pages().items()}
    return turned(markdown, documents[page.file.src_uri])


def _pictures() -> dict[str, str]:
    found = sorted((ROOT / "docs").rglob("*.png"))
    return {_name(one, ROOT): _name(one, ROOT / "docs") for one in found}


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
