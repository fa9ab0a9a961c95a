"""What this process's memory allocator does with large blocks that were freed."""

import ctypes
import platform
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Numbers of `mallopt` in glibc's malloc.h."""

LARGEST_ON_HEAP: Final = 2**30
ALL: Final = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc use large blocks again that were freed, instead of giving each back to the system; else do nothing.

    By default every block above 32 MiB is mapped anew, and the system clears it page by page: of pictures of 96 × 96
    that was two fifths of the time of a training on the CPU. The process stays as large as it once was until it ends,
    which is soon: so a command may ask for it, and a library may not.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP)
        libc.mallopt(M_TRIM_THRESHOLD, ALL)
