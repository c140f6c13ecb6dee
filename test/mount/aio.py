"""One asynchronous O_DIRECT writer (io_submit(2)) beside buffered readers: PATH SECONDS.

Each write counts up in a page. When it has completed, a buffered read must see it. Prints
"writes N stale N".
"""
import ctypes
import mmap
import multiprocessing
import os
import struct
import sys
import time

PAGE = 4096
PAGES = 8
IO_SETUP, IO_SUBMIT, IO_GETEVENTS = 206, 209, 208
IOCB_CMD_PWRITE = 1
libc = ctypes.CDLL(None, use_errno=True)
if os.uname().machine == "aarch64":
    IO_SETUP, IO_SUBMIT, IO_GETEVENTS = 0, 2, 4


def call(*words):
    result = libc.syscall(*words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "aio")
    return result


class Writer:
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.context = ctypes.c_ulong(0)
        call(IO_SETUP, PAGES, ctypes.byref(self.context))
        self.memory = mmap.mmap(-1, PAGE * PAGES)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def write(self, number):
        """All pages, each by a request of its own, under way together."""
        blocks = []
        for page in range(PAGES):
            self.memory[page * PAGE : page * PAGE + 8] = number.to_bytes(8, "little")
            # struct iocb of linux/aio_abi.h
            iocb = struct.pack("<QIIHHIQQqQII", page, 0, 0, IOCB_CMD_PWRITE, 0, self.fd, self.address + page * PAGE, PAGE, page * PAGE, 0, 0, 0)
            blocks.append(ctypes.create_string_buffer(iocb, 64))
        pointers = (ctypes.c_void_p * PAGES)(*(ctypes.addressof(block) for block in blocks))
        submitted = 0
        while submitted < PAGES:
            rest = ctypes.byref(pointers, submitted * ctypes.sizeof(ctypes.c_void_p))
            submitted += call(IO_SUBMIT, self.context, ctypes.c_long(PAGES - submitted), rest)
        events = ctypes.create_string_buffer(32 * PAGES)
        done = 0
        while done < PAGES:
            done += call(IO_GETEVENTS, self.context, ctypes.c_long(1), ctypes.c_long(PAGES - done), events, None)


def read_on(path, stop):
    fd = os.open(path, os.O_RDONLY)
    while not stop.is_set():
        for _ in range(50):
            os.pread(fd, PAGE * PAGES, 0)


def main(path, seconds):
    with open(path, "wb") as file:
        file.write(bytes(PAGE * PAGES))
    stop = multiprocessing.Event()
    readers = [multiprocessing.Process(target=read_on, args=(path, stop)) for _ in range(3)]
    for process in readers:
        process.start()
    writer = Writer(path)
    reader = os.open(path, os.O_RDONLY)
    end = time.monotonic() + seconds
    writes = stale = 0
    while time.monotonic() < end:
        writes += 1
        writer.write(writes)
        seen = os.pread(reader, PAGE * PAGES, 0)
        stale += any(int.from_bytes(seen[page * PAGE : page * PAGE + 8], "little") != writes for page in range(PAGES))
    stop.set()
    for process in readers:
        process.join(10)
    print("writes", writes, "stale", stale)


main(sys.argv[1], float(sys.argv[2]))
