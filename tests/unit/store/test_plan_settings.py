"""Settings that do not go together are refused with the same words, however they are given."""

from __future__ import annotations

from typing import Any

import pytest

from ctrate_convert.errors import DamageError, SettingsError
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import plan_words, run_here

PATHS: dict[str, Any] = dict.fromkeys(
    ("data_folder", "reports_file", "meta_file", "labels_file"), "/x"
)

WRONG: list[dict[str, Any]] = [
    {"layout": "ctclip", "dtype": "int16"},
    {"layout": "ctclip", "encoding": "b2nd"},
    {"trash": "/trash"},
    {"step": 0.5},
    {"step": 0.5, "dtype": "float16"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_python_and_the_command_line_refuse_alike(
    wrong: dict[str, Any], ctrate: SyntheticCtRate, tmp_path: Any
) -> None:
    with pytest.raises(SettingsError) as refused:
        PlanSettings(**PATHS, **wrong)
    words = [word for name, value in wrong.items() for word in (f"--{name}", value)]
    said = run_here(*plan_words(ctrate, tmp_path / "out"), *words)
    assert said.code == refused.value.exit_code
    assert refused.value.what in said.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_in_a_plan_on_disk_it_is_damage(wrong: dict[str, Any]) -> None:
    good = PlanSettings(**PATHS).model_dump()
    data = PlanSettings.model_construct(**(good | wrong)).model_dump_json().encode()
    with pytest.raises(DamageError, match="not a valid PlanSettings"):
        parse(PlanSettings, data, "plan.json")


def test_ctclip_means_float16() -> None:
    assert PlanSettings(**PATHS, layout="ctclip").dtype == "float16"
