"""A file system of its own for the output: ext4 on a loop device, as full as a test wants it.

Sources are deleted only where the output is storage, so memory cannot stand for a full disk.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import needs

_MOUNT = """
image=$1 disk=$2 out=$3 free=$4; shift 4
truncate -s 32M "$image" && mkfs.ext4 -q -F -b 4096 -m 0 "$image" || exit 99
mkdir "$disk" && mount -o loop "$image" "$disk" || exit 99
mkdir "$disk/out" && mount --bind "$disk/out" "$out" || exit 99
if [ "$free" -gt 0 ]; then
    all=$(($(stat -f -c '%a * %S' "$disk")))
    fallocate -l $((all - free)) "$disk/filler" || exit 99
fi
"""

ROOMY = 'rm "$disk/filler"'
"""What gives the file system its space back."""


def on_small_disk(script: str, out: Path, folder: Path, free_bytes: int = 0) -> list[str]:
    """Return the words that run ``script`` where ``out`` has so many bytes left (0: plenty).

    The script knows it as ``$out``, and the whole file system as ``$disk``; its words follow.
    """
    can = 'truncate -s 4M "$0" && mkfs.ext4 -q -F "$0" && mount -o loop "$0" /mnt'
    needs("mkfs.ext4")
    needs("unshare", "unshare", "-m", "sh", "-c", can, str(folder / "try.img"))
    places = (folder / "disk.img", folder / "disk", out, free_bytes)
    return ["unshare", "-m", "sh", "-c", _MOUNT + script, "sh", *map(str, places)]
