"""Name the parts of a source that its shard does not hold."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

BYTES_BEFORE = "bytes-before"
BYTES_BETWEEN = "bytes-between"
BYTES_AFTER = "bytes-after"

# Attributes with other prefixes are the system's, such as security labels and ACLs, and no content.
_USER_ATTRIBUTE = "user."


@dataclass(frozen=True)
class LeftOut:
    """A part of a source that its shard does not hold.

    ``name`` is a member's name in the zip, the name of an extended attribute, or one of the
    constants of this package. ``what`` describes the part for a person.
    """

    name: str
    what: str


def user_attributes(descriptor: int) -> list[LeftOut]:
    """Return the extended attributes that a person or program has set on the file.

    Raises:
        OSError: the file system has attributes but cannot list them.
    """
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise
    return [_attribute(descriptor, name) for name in names if name.startswith(_USER_ATTRIBUTE)]


def _attribute(descriptor: int, name: str) -> LeftOut:
    what = "extended attribute"
    # The name alone suffices to keep the source.
    with contextlib.suppress(OSError):
        what += f", {len(os.getxattr(descriptor, name)):,} bytes"
    return LeftOut(os.fsencode(name).decode("utf-8", "backslashreplace"), what)
