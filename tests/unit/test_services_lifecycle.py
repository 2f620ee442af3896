"""Claims about what a process does for its memory before it starts."""

from __future__ import annotations

import platform
import subprocess
import sys

CODE = """
import ctypes, sys, threading
from matchday.services.lifecycle import spare_arenas
done = spare_arenas()
never, ready = threading.Event(), threading.Barrier(9)
def allocate():
    kept = [bytes(2_000) for _ in range(100)]
    ready.wait()
    never.wait()
threads = [threading.Thread(target=allocate, daemon=True) for _ in range(8)]
for thread in threads: thread.start()
ready.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
never.set()
print(done)
"""


def test_threads_share_one_arena_where_the_c_library_has_them(tmp_path):
    found = tmp_path / "malloc.xml"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(found)], capture_output=True, text=True, check=True
    )
    if platform.libc_ver()[0] == "glibc":
        assert done.stdout == "True\n"
        assert found.read_text().count("<heap nr=") == 1
    else:
        assert done.stdout in ("True\n", "False\n")
