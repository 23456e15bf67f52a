"""The page in a real browser without a screen: light, dark, on paper and on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ctrate_convert.reporting.facts import gather
from ctrate_convert.reporting.page import page
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.support import plan_words, run_here
from tests.unit.reporting.large import on_a_cluster
from tests.unit.reporting.test_report_page import SECTIONS

DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"
PAPER = {LIGHT: (252, 252, 251), DARK: (21, 24, 28)}

Browse = Callable[..., subprocess.CompletedProcess[str]]

PROBE = """<!doctype html><iframe id="page" src="PAGE" style="width:WIDTHpx;height:900px;border:0">
</iframe><pre id="told"></pre><script>
function level(colour) {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(one => {
    const part = one / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(one, other) {
  const [low, high] = [level(one), level(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
onload = () => {
  const view = document.getElementById('page').contentWindow, its = view.document;
  const paper = view.getComputedStyle(its.body).backgroundColor;
  const seen = node => node.getClientRects().length > 0;
  const letters = [...its.querySelectorAll('svg text')].filter(seen);
  const words = [...its.querySelectorAll('h1,h2,h3,p,td,th,dt,dd,small,li,a,figcaption,caption')];
  const style = node => view.getComputedStyle(node);
  const scale = node => node.ownerSVGElement.getBoundingClientRect().width
    / node.ownerSVGElement.viewBox.baseVal.width;
  document.getElementById('told').textContent = JSON.stringify({
    width: its.documentElement.scrollWidth, inner: view.innerWidth,
    charts: its.querySelectorAll('svg').length,
    shown: [...its.querySelectorAll('svg')].filter(seen).length,
    smallest: Math.min(...letters.map(one => parseFloat(style(one).fontSize) * scale(one))),
    letters: Math.min(...letters.map(one => contrast(style(one).fill, paper))),
    words: Math.min(...words.filter(seen).map(one => contrast(style(one).color, paper))),
    bars: [...new Set([...its.querySelectorAll('svg path')].map(one => style(one).fill))],
  });
};
</script>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """Run Chromium without a screen and give what it said."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed: no browser has shown the page")
    folder = tmp_path_factory.mktemp("profile")

    def run(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
        fixed = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--enable-logging=stderr", "--allow-file-access-from-files",
            f"--user-data-dir={folder}",
        )  # fmt: skip
        return subprocess.run(
            [chromium, *fixed, *words, path.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real conversion with failures and a deletion, and the same as if on a cluster."""
    folder = tmp_path_factory.mktemp("pages")
    made = write_synthetic_ctrate(
        folder / "in", samples=12, shape=(48, 40, 24), faults=("corrupt", "no_report", "excluded")
    )
    out = folder / "out"
    words = ("--exclude_file", made.exclude_file, "--samples_per_shard", 3, "--probe", 2)
    assert run_here(*plan_words(made, out, *words)).code == 0
    assert run_here("run", out, "--num_workers", 1).code == 2
    assert run_here("delete", out, "--yes").code == 0
    assert run_here("report", out, "--html", folder / "small.html").code == 0
    facts = gather(Ledger.load(Dataset(out)), [])
    (folder / "cluster.html").write_bytes(page(on_a_cluster(facts, 300)))
    return {name: folder / f"{name}.html" for name in ("small", "cluster")}


def told(browse: Browse, path: Path, width: int, *words: str) -> Any:
    """What a script beside the page, in a frame ``width`` pixels wide, sees in it."""
    probe = path.with_name("probe.html")
    probe.write_text(PROBE.replace("PAGE", path.name).replace("WIDTH", str(width)))
    done = browse(probe, "--window-size=1400,1000", "--dump-dom", *words)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(found[1])


@pytest.mark.parametrize("name", ["small", "cluster"])
def test_every_section_is_there_and_nothing_is_complained_of(
    browse: Browse, pages: dict[str, Path], name: str
) -> None:
    done = browse(pages[name], "--dump-dom")
    for section in SECTIONS:
        assert f'<section id="{section}">' in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["small", "cluster"])
def test_texts_and_bars_stand_out_in_light_and_dark(
    browse: Browse, pages: dict[str, Path], name: str, scheme: str
) -> None:
    """As WCAG asks: 4.5 to 1 for texts."""
    found = told(browse, pages[name], 1280, scheme)
    assert found["letters"] >= 4.5
    assert found["words"] >= 4.5
    assert found["width"] <= found["inner"]
    picture = pages[name].with_suffix(".png")
    browse(pages[name], scheme, "--window-size=1280,2000", f"--screenshot={picture}")
    with Image.open(picture) as image:
        assert image.convert("RGB").getpixel((2, 2)) == PAPER[scheme]


@pytest.mark.parametrize("width", [360, 320, 800])
@pytest.mark.parametrize("name", ["small", "cluster"])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    browse: Browse, pages: dict[str, Path], name: str, width: int
) -> None:
    """Tables scroll by themselves; letters of charts stay large enough to read."""
    found = told(browse, pages[name], width)
    assert found["inner"] == width
    assert found["width"] <= width
    assert found["smallest"] >= (7.5 if width < 700 else 7.0)
    assert found["shown"] == found["charts"] - 2  # of both timelines the one that fits


@pytest.mark.parametrize("name", ["small", "cluster"])
def test_it_can_be_printed(browse: Browse, pages: dict[str, Path], name: str) -> None:
    paper = pages[name].with_suffix(".pdf")
    browse(pages[name], DARK, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    data = paper.read_bytes()
    assert data.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 12
