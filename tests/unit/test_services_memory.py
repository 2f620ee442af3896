"""Claims about what a process does for its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

ONE_ARENA = """
import ctypes, sys, threading
from matchday.services.memory import spare_arenas
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

ROOM_GIVEN_BACK = """
import os, threading, time
from matchday.clock import SystemClock
from matchday.services import lifecycle
lifecycle.RETURN_ROOM_EVERY_S = 0.05
def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
def fill(kept):
    pieces = [b"1" * 2_000 + bytes([n % 256]) for n in range(10_000)]
    kept += pieces[::100]  # stands in the way of giving back all of it at once
def work(stop):
    kept, before = [], resident_mib()
    threads = [threading.Thread(target=fill, args=(kept,)) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    grown, until_s = resident_mib() - before, time.monotonic() + 20
    while (left := resident_mib() - before) > 0.4 * grown and time.monotonic() < until_s:
        stop.wait(0.02)
    print(len(kept), left <= 0.4 * grown or (left, grown))
    service.request_stop()
service = lifecycle.Service("test", [lifecycle.Role("test.work", work)], clock=SystemClock())
service.run()
"""


def test_a_service_gives_free_memory_back_while_it_runs():
    done = subprocess.run(
        [sys.executable, "-c", ROOM_GIVEN_BACK], capture_output=True, text=True, check=True
    )
    if platform.libc_ver()[0] == "glibc":
        assert done.stdout == "400 True\n"


def test_threads_share_one_arena_where_the_c_library_has_them(tmp_path):
    found = tmp_path / "malloc.xml"
    done = subprocess.run(
        [sys.executable, "-c", ONE_ARENA, str(found)], capture_output=True, text=True, check=True
    )
    if platform.libc_ver()[0] == "glibc":
        assert done.stdout == "True\n"
        assert found.read_text().count("<heap nr=") == 1
    else:
        assert done.stdout in ("True\n", "False\n")
