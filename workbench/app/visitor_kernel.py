"""Starts the kernel of one visitor: an IPython kernel that cannot take more memory than its share.

``WORKBENCH_KERNEL_BYTES`` in its environment is the limit. What asks for more gets a MemoryError, which the page shows
as a sentence; neither the server nor another visitor's kernel loses anything.
"""

import os
import resource
import sys
from pathlib import Path

LIMIT = "WORKBENCH_KERNEL_BYTES"


def limit_memory(limit_bytes: int):
    """Limit the memory that this process may write to, in bytes; files that it only maps do not count.

    Address space (RLIMIT_AS) would be the wrong measure: torch maps gigabytes of code that many processes share.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit_bytes = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    if Path(sys.path[0]) == Path.cwd():  # the notebook's folder must not hide a package while the kernel loads
        del sys.path[0]
    from ipykernel.kernelapp import launch_new_instance

    if os.environ.get(LIMIT):
        limit_memory(int(os.environ[LIMIT]))
    launch_new_instance()
