"""A person is asked and told in Chinese where the environment says so; evidence stays English."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from ctrate_convert.cli.language import amount, error_text, translated, word
from ctrate_convert.cli.wrap import wrap
from ctrate_convert.errors import ExitCode, RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import Finished, convert_words, run_at_terminal, run_cli
from tools.messages import catalogs, compiled, read, source_texts

CHINESE = re.compile("[\u3400-\u9fff\uff01-\uff5e]")
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
NO_PLAN = {"zh": "错误：这里没有计划", "en": "error: no plan here"}


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without a language, for a test to set one."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def chinese(speak: pytest.MonkeyPatch) -> None:
    speak.setenv("LANG", "zh_CN.UTF-8")


def messages(catalog: Path) -> dict[str, str]:
    """The catalog's messages without its header, contexts and blanks at their ends."""
    found = read(catalog.read_text())
    return {text.rpartition("\x04")[2].strip(): told for text, told in found.items() if text}


# --- Catalogs


@pytest.mark.parametrize("catalog", catalogs(), ids=lambda path: path.parts[-3])
def test_the_compiled_catalog_is_that_of_its_source(catalog: Path) -> None:
    """Else: python -m tools.messages."""
    assert catalog.with_suffix(".mo").read_bytes() == compiled(read(catalog.read_text()))


@pytest.mark.parametrize("catalog", catalogs(), ids=lambda path: path.parts[-3])
def test_every_message_still_stands_in_the_source(catalog: Path) -> None:
    assert sorted(set(messages(catalog)) - source_texts()) == []


@pytest.mark.parametrize("catalog", catalogs(), ids=lambda path: path.parts[-3])
def test_translations_place_facts_that_are_there(catalog: Path) -> None:
    for text, told in messages(catalog).items():
        assert told, text
        places = {int(place) for place in re.findall(r"\{(\d)(?::[tn])?\}", told)}
        assert places <= set(range(text.count("{}"))), text
        assert "{}" not in told, text


@pytest.mark.parametrize("catalog", catalogs(), ids=lambda path: path.parts[-3])
def test_sentences_with_facts_are_not_taken_for_others(catalog: Path) -> None:
    """Five characters of its own, or a word's context, keep a sentence apart from any fact."""
    for text in read(catalog.read_text()):
        if "{}" in text and "\x04" not in text:
            assert len(re.sub(r"\{\}|\s", "", text)) >= 5, text


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("catalog", catalogs(), ids=lambda path: path.parts[-3])
def test_no_other_sentence_of_the_source_is_taken_for_a_message(catalog: Path) -> None:
    """Not even with facts in it."""
    known = messages(catalog)
    others = (text for text in source_texts() if text not in known and "\n" not in text)
    for text in others:
        filled = text.replace("{}", "7")
        assert translated(filled) == filled


# --- Which language


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW.UTF-8"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_ALL": "zh_CN.UTF-8", "LANG": "C"}, "zh"),
        ({"LANGUAGE": "zh_CN:en", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LANGUAGE": "de:zh_CN", "LANG": "de_DE.UTF-8"}, "zh"),
        ({"LANGUAGE": "zh_CN"}, "zh"),
        ({"LANGUAGE": "en_US:en:zh_CN", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANGUAGE": "zh_CN", "LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "POSIX", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "xx/../../etc"}, "en"),
        ({}, "en"),
    ],
    ids=str,
)
def test_the_language_is_that_of_the_environment(
    speak: pytest.MonkeyPatch, environment: dict[str, str], language: str
) -> None:
    for name, value in environment.items():
        speak.setenv(name, value)
    assert error_text(RefusedError("no plan here")) == NO_PLAN[language]


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
    ],
    ids=str,
)
def test_the_command_line_speaks_it(
    speak: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], language: str
) -> None:
    """And the exit code and the JSON are the same in each."""
    for name, value in environment.items():
        speak.setenv(name, value)
    done = run_cli("status", tmp_path / "out", "--json")
    assert done.code == ExitCode.USAGE
    assert done.stderr.splitlines()[0] == NO_PLAN[language]
    assert done.json()["error"]["what"] == "no plan here"


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8"])
def test_a_terminal_that_cannot_show_it_gets_english_or_escapes(
    speak: pytest.MonkeyPatch, converted_once: Path, encoding: str
) -> None:
    speak.setenv("PYTHONIOENCODING", encoding)
    wanted = "样本" if encoding in ("gbk", "utf-8") else "Samples"
    for words in (["status"], ["report"], ["delete", "--dry_run"], ["delete"]):
        done = run_cli(words[0], converted_once, *words[1:], encoding=encoding)
        assert done.code in (0, ExitCode.REFUSED), done.text
        assert "Traceback" not in done.text
        assert wanted in done.text or words[0] != "status"
    found = run_cli("status", converted_once, "--json", encoding=encoding)
    assert json.loads(found.stdout)["samples"]["converted"] == 8


def test_a_stream_in_memory_takes_everything(speak: pytest.MonkeyPatch) -> None:
    speak.setenv("LANG", "zh_CN.UTF-8")
    speak.setattr(sys, "stdout", io.StringIO())
    assert word("done") == "已完成"


# --- Sentences


@pytest.mark.usefixtures("chinese")
def test_facts_stay_as_they_are() -> None:
    """Even those that read like a message, or like a place for a fact."""
    for fact in ("deleted for good", "{0} {x}", "done", "a\nb"):
        told = error_text(RefusedError("no plan here", where=fact, seen="{0}"))
        assert told.splitlines()[1].startswith("  位置：    ")
        assert fact in told
        assert translated(f"no source is deleted: {fact}") == f"不删除任何源文件：{fact}"
    assert translated("a sentence that no catalog has") == "a sentence that no catalog has"
    assert translated("  Nothing to delete.\n") == "  没有可以删除的文件。\n"
    assert translated("") == word("") == ""


@pytest.mark.usefixtures("chinese")
def test_amounts_have_the_order_of_the_language() -> None:
    assert amount(1234, "failed") == "失败 1,234"


def test_english_is_as_it_was(speak: pytest.MonkeyPatch) -> None:
    error = RefusedError("what", where="here", seen=1, expected=2, next_command="this")
    assert error_text(error) == "error: " + "\n".join(error.lines())
    assert amount(1234, "failed") == "1,234 failed"


# --- Width


TEXT = (
    "每个源文件在删除前都会重读一遍，与分片还原的内容逐体素比对（float32、int16），"
    "误差不超过 --max_error 允许的 0.001。失败的和被排除的样本，源文件保留。"
)


@pytest.mark.parametrize("lead", range(40))
def test_chinese_lines_fit_into_eighty_cells(lead: int) -> None:
    text = "字" * lead + TEXT
    lines = wrap(text, first="  - ", rest="    ")
    assert all(cell_len(line) <= 80 for line in lines)
    assert "".join(line[4:] for line in lines).replace(" ", "") == text.replace(" ", "")
    assert not any(line.strip()[0] in "，。；：、）" for line in lines)
    assert not any(line.endswith("（") for line in lines)
    assert any("--max_error" in line for line in lines)


def test_a_path_stays_in_one_piece() -> None:
    for path in ("/data/" + "x" * 100, "/数据/" + "很长的目录" * 20):
        assert path in wrap(f"第二份副本：{path} 中也必须有这个分片。")


# --- At the real command line


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    made = write_synthetic_ctrate(folder / "in", samples=8, shape=(6, 5, 4), layout="flat")
    done = run_cli(*convert_words(made, folder / "out"))
    assert done.code == 0, done.text
    return folder / "out"


def question_of(done: Finished) -> list[str]:
    return done.stderr.partition("你的回答")[0].splitlines()


@pytest.mark.usefixtures("chinese")
def test_the_question_is_chinese_and_the_evidence_english(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Consent, journals, attempts, manifest, card and audit page: read by programs and lawyers."""
    out = tmp_path / "out"
    words = [*convert_words(ctrate, out), "--delete_source_files", "--trash", tmp_path / "trash"]
    slip = run_at_terminal("删除\n", *words)
    assert slip.code == ExitCode.REFUSED
    assert "错误：什么也没有做" in slip.stderr
    assert not out.exists()
    done = run_at_terminal("DELETE\n", *words)
    assert done.code == 0, done.text
    question = question_of(done)
    assert question[0].startswith("警告：至多 8 个源文件（")
    assert question[-3:] == [
        "  DELETE 转换并删除；",
        "  keep 只转换，不删除；",
        "  输入其他内容则什么也不做。",
    ]
    told = [line for line in question if line[:1] != " " or line[:3] != "  /"]
    assert all(CHINESE.search(line) for line in told)
    assert all(cell_len(line) <= 80 or "/" in line for line in question)
    assert any("舍入为 float16" in line for line in question)
    assert "样本：已转换 8 + 失败 0" in done.stdout

    assert run_cli("audit", out).code == 0
    assert list((out / ".run" / "audits").rglob("audit.txt"))
    assert list(Dataset(out).consents.glob("*.json"))
    for path in out.rglob("*"):
        if path.is_file() and path.suffix != ".tar":
            assert not CHINESE.search(path.read_text()), path
    for command in ("status", "history", "report"):
        assert not CHINESE.search(run_cli(command, out, "--json").stdout)


@pytest.mark.usefixtures("chinese")
def test_the_status_adds_up_in_chinese(converted_once: Path) -> None:
    done = run_cli("status", converted_once)
    assert done.code == 0
    assert "任务：已完成 1。" in done.stdout
    assert "样本：已转换 8 + 失败 0 + 待处理 0 + 已排除 1 = 9。" in done.stdout
    assert f"下一步：ctrate-convert verify {converted_once}" in done.stdout
