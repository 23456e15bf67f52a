"""The scratch directory: where each file is, and what a later process must know to take it down."""

import contextlib
import json
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from slurm.testbed.errors import TestbedError

SOCKET_PATH_MAX_BYTES = 107  # sun_path holds 108 with its final zero
LONGEST_SOCKET = "/spool/c65535n99/c65535n99_67043328.4294967291"
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")  # needs quoting in none of the daemons' files

RECORD_NAME = "testbed.json"
TRANSIENT = ("run", "spool", "state", "daemons", "database", "tmp")
"""Subdirectories that exist only while the testbed is up; configuration and logs stay."""

SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """Every path of one testbed, spelled through `base`: the directory, or a short link to it."""

    base: Path

    @property
    def slurm_conf(self) -> Path:
        """What the environment variable SLURM_CONF must name."""
        return self.base / "slurm.conf"

    @property
    def cgroup_conf(self) -> Path:
        """Slurm looks for it beside slurm.conf."""
        return self.base / "cgroup.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        """Slurm insists on mode 0600."""
        return self.base / "slurmdbd.conf"

    @property
    def mariadb_conf(self) -> Path:
        """The only configuration the private MariaDB reads."""
        return self.base / "mariadb.conf"

    @property
    def munge_key(self) -> Path:
        """The cluster's own secret, mode 0400."""
        return self.base / "run" / "munge.key"

    @property
    def munge_socket(self) -> Path:
        """Where every daemon and command asks for credentials."""
        return self.base / "run" / "munge.socket"

    @property
    def mariadb_socket(self) -> Path:
        """The database's only door: it listens on no port."""
        return self.base / "run" / "mariadb.socket"

    def log(self, daemon: str) -> Path:
        """The log of one daemon, by the name it was started under."""
        return self.base / "log" / f"{daemon}.log"

    def daemon_record(self, daemon: str) -> Path:
        """The id and start time of one daemon."""
        return self.base / "daemons" / f"{daemon}.json"

    def make_directories(self) -> None:
        """Create the directory tree, closed to other users, without logs of an earlier cluster."""
        for name in ("log", *TRANSIENT):
            (self.base / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for log in (self.base / "log").glob("*.log"):
            log.unlink()

    def log_tail(self, daemon: str, lines: int = 15) -> str:
        """The end of one log, for error messages; empty if there is none."""
        try:
            text = self.log(daemon).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return f"{self.log(daemon)} ends with:\n" + "\n".join(text.splitlines()[-lines:])


@dataclass(frozen=True)
class Record:
    """What a process that did not start the testbed must know to take it down completely."""

    base: str
    nodes: tuple[str, ...]
    cgroup_directories: tuple[str, ...]
    schema: int = SCHEMA

    def write(self, directory: Path) -> None:
        """Leave the record in the scratch directory."""
        (directory / RECORD_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, directory: Path) -> "Record | None":
        """The record in that directory; None if no testbed is up there."""
        path = directory / RECORD_NAME
        try:
            fields = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise TestbedError(f"{path} is not a testbed record of schema {SCHEMA}")
        return cls(
            base=str(fields["base"]),
            nodes=tuple(fields["nodes"]),
            cgroup_directories=tuple(fields["cgroup_directories"]),
        )

    @staticmethod
    def remove(directory: Path) -> None:
        """Say that no testbed is up there any more."""
        (directory / RECORD_NAME).unlink(missing_ok=True)


def short_base(directory: Path) -> Path:
    """The directory itself, or a new short link to it where daemons could not use its path.

    Unix sockets below a path of more than about 60 letters cannot be bound, and some of the
    daemons' configuration files cannot spell blanks or brackets.
    """
    fits = len(str(directory)) + len(LONGEST_SOCKET) <= SOCKET_PATH_MAX_BYTES
    if fits and PLAIN_PATH.fullmatch(str(directory)):
        return directory
    name = f"slurm-testbed-{secrets.token_hex(4)}"
    link = Path(tempfile.gettempdir()) / name
    if len(str(link)) + len(LONGEST_SOCKET) > SOCKET_PATH_MAX_BYTES:
        link = Path("/tmp") / name
    link.symlink_to(directory, target_is_directory=True)
    return link


def remove_short_base(record: Record, directory: Path) -> None:
    """Remove the link that `short_base` made, and nothing else."""
    base = Path(record.base)
    if base != directory and base.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            base.unlink()
