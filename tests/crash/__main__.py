"""``python -m tests.crash FOLDER``: one run in an empty folder; prints what it did to files."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.disk import Disk
from tests.crash.scenario import Scenario

scenario = Scenario.make(Path(sys.argv[1]))
recorder = scenario.record(Disk.load(scenario.disk_folder))
sys.stdout.write("".join(line + "\n" for line in recorder.told))
