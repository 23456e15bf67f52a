"""Read a file from storage, bypassing the page cache if the file system allows it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor

from ctrate_convert.store.durable import drop_page_cache

_BLOCK_BYTES = 2**21


class StorageReader:
    """A sequential reader of an open file that reads one block ahead; a context manager.

    It starts at the beginning of the file, or where `seek` puts it. It reads with O_DIRECT. If the
    file system refuses that, or an offset is not aligned, it reads through the page cache, after
    asking the kernel to drop the file's pages.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        drop_page_cache(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._set_direct(True)
        self._size_bytes = os.fstat(descriptor).st_size
        # O_DIRECT needs page-aligned memory, which an anonymous map is.
        pages = -(-min(_BLOCK_BYTES, max(1, self._size_bytes)) // mmap.PAGESIZE)
        self._blocks = [mmap.mmap(-1, pages * mmap.PAGESIZE) for _ in range(2)]
        self._threads = ThreadPoolExecutor(1)
        self._offset = 0
        self._position = 0
        self._piece = memoryview(b"")
        self._ahead: Future[memoryview] | None = None

    def take(self, limit_bytes: int | None = None) -> memoryview:
        """Return the file's next bytes, at most ``limit_bytes``; empty only at the end of the file.

        The result is valid until the next call.

        Raises:
            OSError: the file cannot be read.
        """
        if not self._piece:
            self._piece = self._next_block(read_ahead=True)
        taken = self._piece[:limit_bytes]
        self._piece = self._piece[len(taken) :]
        self._position += len(taken)
        return taken

    def seek(self, offset: int) -> None:
        """Continue with the next `take` at byte ``offset``.

        Raises:
            OSError: the file cannot be read.
        """
        skipped = offset - self._position
        if not 0 <= skipped <= len(self._piece):
            if self._ahead is not None:
                self._ahead.exception()  # wait, and drop the error of a block nobody needs
                self._ahead = None
            skipped = offset % mmap.PAGESIZE
            self._offset = offset - skipped
            # A read at an unaligned offset, as after the end of the file, may have switched it off.
            self._set_direct(True)
            # Do not read ahead: a caller that seeks often wants one small member in this block.
            self._piece = self._next_block(read_ahead=False)
        self._piece = self._piece[skipped:]
        self._position = offset

    def _next_block(self, *, read_ahead: bool) -> memoryview:
        block = self._ahead.result() if self._ahead is not None else self._read_block()
        # A thread that only finds the end of a small file would take longer than the file.
        more = read_ahead and block and self._offset < self._size_bytes
        self._ahead = self._threads.submit(self._read_block) if more else None
        return block

    def _read_block(self) -> memoryview:
        block = self._blocks[0]
        # The caller still holds the other block, while this one is filled in the background.
        self._blocks.reverse()
        try:
            got = os.preadv(self._descriptor, [block], self._offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # O_DIRECT is refused here, or the offset is not aligned any more.
            self._set_direct(False)
            got = os.preadv(self._descriptor, [block], self._offset)
        self._offset += got
        return memoryview(block)[:got]

    def _set_direct(self, wanted: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if wanted else 0))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def close(self) -> None:
        """Wait for the block being read and switch O_DIRECT off; the file stays open."""
        # The caller closes the descriptor next: a read that is still under way could meet another
        # file under its number.
        self._threads.shutdown()
        self._set_direct(False)

    def __enter__(self) -> StorageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
