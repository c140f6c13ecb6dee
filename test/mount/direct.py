"""One writer through the descriptor that made the file, and readers beside it: PATH SECONDS.

The writer counts up in a page and looks, through another descriptor, whether he sees what he wrote; the readers (read(2)
and a mapping) look whether it ever goes back. Prints "writes N stale N back N".
"""
import mmap
import multiprocessing
import os
import sys
import time

AT = 4096


def number(data):
    return int.from_bytes(data[:8], "little")


def watch(path, stop, backs):
    fd = os.open(path, os.O_RDONLY)
    mapping = mmap.mmap(fd, 2 * AT, prot=mmap.PROT_READ)
    last = 0
    while not stop.is_set():
        for _ in range(100):
            for seen in (number(os.pread(fd, 8, AT)), number(mapping[AT : AT + 8])):
                if seen < last:
                    with backs.get_lock():
                        backs.value += 1
                last = seen


def main(path, seconds):
    writer = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.pwrite(writer, bytes(2 * AT), 0)
    stop = multiprocessing.Event()
    backs = multiprocessing.Value("i", 0)
    watchers = [multiprocessing.Process(target=watch, args=(path, stop, backs)) for _ in range(2)]
    for process in watchers:
        process.start()
    reader = os.open(path, os.O_RDONLY)
    end = time.monotonic() + seconds
    writes = stale = 0
    while time.monotonic() < end:
        writes += 1
        os.pwrite(writer, writes.to_bytes(8, "little"), AT)
        stale += number(os.pread(reader, 8, AT)) != writes
    stop.set()
    for process in watchers:
        process.join(10)
    print("writes", writes, "stale", stale, "back", backs.value)


main(sys.argv[1], float(sys.argv[2]))
