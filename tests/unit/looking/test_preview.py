"""`preview`: pictures, pages and terminals of samples, of their sources, and of what failed."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import Converted, at_terminal_of, command, convert_words, run_cli, run_here

Make = Callable[..., SyntheticCtRate]


def picture_at(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_sample_is_shown_beside_its_source(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(3, faults=(), shape=(40, 48, 20))
    out = tmp_path / "out"
    assert run_cli(*convert_words(made, out)).code == ExitCode.DONE
    key = made.keys[0]
    done = run_here("preview", out, "--key", key, "--to", tmp_path / "one.png")
    assert done.code == ExitCode.DONE, done.text
    assert "Wrote" in done.stdout
    with_source = picture_at(tmp_path / "one.png")
    # The row of differences is grey where shard and source are equal.
    grey = (with_source == 128).mean(axis=1)
    assert (grey > 0.6).sum() >= 200
    made.sources[key].unlink()
    assert run_here("preview", out, "--key", key, "--to", tmp_path / "two.png").code == 0
    assert picture_at(tmp_path / "two.png").shape[0] < with_source.shape[0] - 400


def test_a_source_that_differs_shows(make_ctrate: Make, tmp_path: Path) -> None:
    """A single unit of difference is a hundred grey values apart from equal."""
    made = make_ctrate(1, faults=(), shape=(40, 48, 20), kinds=("volume",))
    out = tmp_path / "out"
    assert run_cli(*convert_words(made, out)).code == ExitCode.DONE
    (key,) = made.keys
    path = made.sources[key]
    with np.load(path) as arrays:
        voxels = {name: arrays[name] for name in arrays.files}
    name = next(one for one in voxels if voxels[one].ndim == 3)
    voxels[name][: voxels[name].shape[0] // 2 + 1] += voxels[name].dtype.type(1)
    np.savez(path, **voxels)
    done = run_here("preview", out, "--key", key)
    assert "from the source  at most" in done.stdout
    assert "at most 0 HU" not in done.stdout


def test_the_page_is_whole_by_itself(converted: Converted, tmp_path: Path) -> None:
    to = tmp_path / "page.html"
    done = run_here("preview", converted.out, "-n", 4, "--to", to)
    assert done.code == ExitCode.DONE, done.text
    text = to.read_text()
    assert text.count("<figure>") == 4
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]+", "", text)


def test_in_a_pipe_there_are_no_colours(converted: Converted) -> None:
    done = subprocess.run(
        command("preview", converted.out, "-n", "2"), capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[:9])) <= 120
    assert done.stdout.count("volume  ") == 2


@pytest.mark.parametrize(("colours", "begins"), [("truecolor", "\x1b[38;2;"), ("", "\x1b[38;5;")])
def test_a_terminal_shows_half_blocks(converted: Converted, colours: str, begins: str) -> None:
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": colours}
    env.pop("NO_COLOR", None)
    shown = at_terminal_of(90, "preview", converted.out, "-n", 1, env=env)
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in shown.splitlines()]
    assert begins in shown
    assert [len(row) for row in rows if "▀" in row] == [90] * sum("▀" in row for row in rows)
    plain = at_terminal_of(90, "preview", converted.out, "-n", 1, env={**env, "NO_COLOR": "1"})
    assert "▀" not in plain
    assert begins not in plain


def test_files_of_every_kind_are_shown(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(2, faults=(), kinds=("nii.gz", "nii"), shape=(20, 24, 16))
    for path in made.sources.values():
        done = run_here("preview", path, "--to", tmp_path / "file.png")
        assert done.code == ExitCode.DONE, done.text
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK not really")
    refused = run_cli("preview", broken)
    assert refused.code == ExitCode.SAMPLES_FAILED
    assert str(broken) in refused.stderr
    assert "Traceback" not in refused.text


def test_what_failed_is_shown_as_far_as_it_can_be_read(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(4, faults=("corrupt",))
    out = tmp_path / "out"
    assert run_cli(*convert_words(made, out)).code == ExitCode.SAMPLES_FAILED
    done = run_cli("preview", out, "--failed")
    assert done.code == ExitCode.DONE
    (failed,) = made.faults
    assert failed in done.stderr


def test_outliers_are_those_unlike_the_others(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(8, faults=(), kinds=("volume",), shape=(20, 24, 16))
    odd = made.keys[5]
    np.savez(made.sources[odd], volume=np.full((9, 9, 9), 5, np.int16))
    out = tmp_path / "out"
    assert run_cli(*convert_words(made, out)).code == ExitCode.DONE
    done = run_here("preview", out, "--outliers", "-n", 1)
    assert f"volume  {odd}" in done.stdout


def test_a_damaged_shard_is_said(converted: Converted) -> None:
    shard = sorted(converted.out.glob("shard-*.tar"))[0]
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:700])
    done = run_cli("preview", converted.out, "-n", 8)
    assert done.code == ExitCode.DAMAGE
    assert shard.name in done.stderr
    assert "Traceback" not in done.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--key", "nobody"), "no sample 'nobody'"),
        (("--to", "picture.jpg"), "--to writes .png or .html"),
        (("--failed", "--outliers"), "do not go together"),
    ],
)
def test_mistakes_are_named(converted: Converted, words: tuple[str, ...], said: str) -> None:
    refused = run_cli("preview", converted.out, *words)
    assert refused.code == ExitCode.USAGE
    assert said in refused.stderr


def test_in_a_notebook(converted: Converted) -> None:
    volumes = Volumes(converted.out)
    sample = volumes[next(iter(volumes))]
    assert sample.show().size[0] > 600
    shown = sample._repr_html_()
    assert shown.startswith('<figure><img src="data:image/png;base64,')
    assert sample.key in shown
    listed = volumes._repr_html_()
    assert all(key in listed for key in volumes)


def test_the_picture_is_a_png(converted: Converted, tmp_path: Path) -> None:
    run_here("preview", converted.out, "-n", 2, "--to", tmp_path / "p.png")
    paths = sorted(tmp_path.glob("p-*.png"))
    assert [path.name for path in paths] == ["p-00.png", "p-01.png"]
    for path in paths:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.verify()
            assert (image.format, image.mode) == ("PNG", "L")
