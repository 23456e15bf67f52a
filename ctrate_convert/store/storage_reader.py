"""Reading a file back from storage itself, past the page cache where the file system allows it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor

from ctrate_convert.store.durable import drop_page_cache

_BLOCK_BYTES = 2**21


class StorageReader:
    """One pass over an open file from its start, the next block read ahead; a context manager.

    After `seek` the pass goes on elsewhere. It reads with O_DIRECT. Where that is refused, or an
    offset is not aligned any more, it reads what the kernel gives after it was asked to forget
    the file's pages.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        drop_page_cache(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._set_direct(True)
        size_bytes = min(_BLOCK_BYTES, max(1, os.fstat(descriptor).st_size))
        # Anonymous maps, since O_DIRECT wants page-aligned memory.
        pages = -(-size_bytes // mmap.PAGESIZE)
        self._blocks = [mmap.mmap(-1, pages * mmap.PAGESIZE) for _ in range(2)]
        self._threads = ThreadPoolExecutor(1)
        self._offset = 0
        self._position = 0
        self._piece = memoryview(b"")
        self._ahead: Future[memoryview] | None = None

    def take(self, limit_bytes: int | None = None) -> memoryview:
        """Return the file's next bytes, some but at most ``limit_bytes``; none at its end.

        Valid until the next call.

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
        """Let the next `take` begin at byte ``offset``.

        Raises:
            OSError: the file cannot be read.
        """
        skipped = offset - self._position
        if not 0 <= skipped <= len(self._piece):
            if self._ahead is not None:
                self._ahead.exception()  # of a block that nobody wants any more
                self._ahead = None
            skipped = offset % mmap.PAGESIZE
            self._offset = offset - skipped
            self._set_direct(True)
            # That block is often all that is wanted: a small member lies in it whole.
            self._piece = self._next_block(read_ahead=False)
        self._piece = self._piece[skipped:]
        self._position = offset

    def _next_block(self, *, read_ahead: bool) -> memoryview:
        block = self._ahead.result() if self._ahead is not None else self._read_block()
        more = read_ahead and block
        self._ahead = self._threads.submit(self._read_block) if more else None
        return block

    def _read_block(self) -> memoryview:
        block = self._blocks[0]
        self._blocks.reverse()
        try:
            got = os.preadv(self._descriptor, [block], self._offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
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
        """Wait for the block under way; the file stays open and is read as it was before."""
        self._threads.shutdown()
        self._set_direct(False)

    def __enter__(self) -> StorageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
