"""``python -m tests.promises.crash FOLDER``: one run in an empty folder; prints its file calls."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.promises.crash.disk import Disk
from tests.promises.crash.scenario import Scenario

scenario = Scenario.make(Path(sys.argv[1]))
recorder = scenario.record(Disk.load(scenario.disk_folder))
sys.stdout.write("".join(line + "\n" for line in recorder.told))
