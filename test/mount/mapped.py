"""Stores through mappings that nobody has synced, as other programs see them. Argument: a directory. Prints a JSON object."""
import ctypes
import errno
import json
import mmap
import os
import subprocess
import sys
import time

PAGE = mmap.PAGESIZE
directory = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
results = {}


class File:
    """A file of `size` bytes with data in the given extents, mapped whole and up to the end of its last page."""

    def __init__(self, name, size, extents=()):
        self.path = os.path.join(directory, name)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self.fd, size)
        for at, length in extents:
            os.pwrite(self.fd, b"d" * length, at)
        os.fsync(self.fd)
        self.map = mmap.mmap(self.fd, size)
        # mmap.mmap gives no access behind the end of the file, though the page is there.
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def store(self, at, data):
        ctypes.memmove(self.base + at, data, len(data))

    def load(self, at, length):
        return ctypes.string_at(self.base + at, length)

    def seek(self, at, whence):
        try:
            return os.lseek(self.fd, at, whence)
        except OSError as error:
            return errno.errorcode[error.errno]

    def content(self):
        with open(self.path, "rb") as file:
            return file.read()


def copies(name, file, *options):
    """Whether cp copies what read(2) reads, and how many bytes the copy takes."""
    to = file.path + ".copy"
    for mode in ("auto", "always", "never"):
        subprocess.run(["cp", f"--sparse={mode}", *options, file.path, to], check=True)
        with open(to, "rb") as copy:
            results[f"{name} --sparse={mode}"] = copy.read() == file.content()


# Wholly a hole.
file = File("hole", 64 * PAGE)
file.store(0, b"first")
results["SEEK_DATA at a store"] = file.seek(0, os.SEEK_DATA) == 0
copies("cp of a hole", file)

# Stores at the start, in the middle and at the end of holes; beside data in one page; again and again.
file = File("mixed", 64 * PAGE + 100, [(8 * PAGE + 10, 100), (32 * PAGE, 4 * PAGE)])
for at in (0, 8 * PAGE + 2000, 8 * PAGE, 20 * PAGE + 1, 36 * PAGE, 63 * PAGE, 64 * PAGE + 50):
    page = at // PAGE * PAGE
    file.store(at, b"stored")
    found = file.seek(page, os.SEEK_DATA)
    results[f"SEEK_DATA after a store at {at}"] = found != "ENXIO" and page <= found <= at
    file.store(at, b"Stored")
    copies(f"cp after a store at {at}", file)
    end = file.seek(at, os.SEEK_HOLE)
    results[f"SEEK_HOLE after a store at {at}"] = end >= at + 6
    # Where nothing was stored a hole stays one.
    results[f"SEEK_HOLE elsewhere, after a store at {at}"] = file.seek(40 * PAGE, os.SEEK_HOLE) == 40 * PAGE

# A store into a page that was read while it was a hole, after a look that found none there.
file = File("later", 16 * PAGE, [(0, PAGE)])
results["nothing there"] = file.seek(PAGE, os.SEEK_DATA) == "ENXIO"
results["reads zeros"] = file.load(5 * PAGE, 4) == b"\0" * 4
results["still nothing there"] = file.seek(PAGE, os.SEEK_DATA) == "ENXIO"
file.store(5 * PAGE, b"there")
results["found"] = file.seek(PAGE, os.SEEK_DATA) == 5 * PAGE
file.store(6 * PAGE, b"there")
results["found again"] = file.seek(6 * PAGE, os.SEEK_DATA) == 6 * PAGE
results["and no more"] = file.seek(7 * PAGE, os.SEEK_DATA) == "ENXIO"

# Reserved and never written is a hole too, until somebody stores there.
file = File("reserved", 16 * PAGE)
assert libc.fallocate(file.fd, 0, 0, 16 * PAGE) == 0
file.store(3 * PAGE, b"there")
copies("cp of what is reserved", file)

# A private mapping changes nothing, and what is stored there is nobody else's.
file = File("private", 4 * PAGE)
private = mmap.mmap(file.fd, 4 * PAGE, flags=mmap.MAP_PRIVATE)
private[0:4] = b"mine"
results["private"] = file.seek(0, os.SEEK_DATA) == "ENXIO"


def until(read, is_right):
    """What is read once it is right, or after ten seconds."""
    end = time.monotonic() + 10
    while not is_right(read()) and time.monotonic() < end:
        time.sleep(0.001)
    return read()


def grown(name, grow, size=100, dirty_again=False):
    """What is read behind the old end, after something was stored there through a mapping and the file has grown."""
    # Of a buffered write the first store is too early: see docs/conformance.md.
    dirty_again = dirty_again or "pwrite" in name
    file = File(name, size, [(0, size)])
    end = size - size % PAGE
    file.store(size - 1, b"e" + b"garbage" * 20)
    if dirty_again:
        os.fsync(file.fd)
        file.store(size, b"again")
    grow(file, size)
    # What the growing itself has written is "w"s. Only a buffered write may show the rest of its page for an instant.
    is_right = lambda data: set(data[size:]) <= {0, ord("w")} and len(data) > size
    data = until(file.content, is_right) if "pwrite" in name else file.content()
    results[f"{name}: zeros"] = is_right(data)
    results[f"{name}: the last byte"] = data[size - 1 : size] == b"e"
    # What is stored afterwards is kept.
    mapped = mmap.mmap(file.fd, len(data))
    mapped[size : size + 5] = b"valid"
    mapped.flush()
    os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    results[f"{name}: stored after"] = file.content()[size : size + 5] == b"valid"


def kept(name, offset, rounds=200):
    """What is stored in the gap that a buffered write leaves, right after it: how often it is there, of so many times."""
    file = File(name, PAGE, [])
    os.ftruncate(file.fd, 16 * PAGE)
    mapped = mmap.mmap(file.fd, 16 * PAGE)
    count = 0
    for i in range(rounds):
        os.ftruncate(file.fd, PAGE + 100)
        mapped[PAGE + 10] = 1 + i % 200
        mapped.flush()
        os.pwrite(file.fd, b"far", offset)
        mapped[PAGE + 900 : PAGE + 905] = b"there"
        mapped.flush()
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        count += os.pread(file.fd, 5, PAGE + 900) == b"there"
    results[f"{name}: all there"] = count == rounds or count


def in_copy(file, size):
    with open(os.path.join(directory, "source"), "wb") as source:
        source.write(b"w" * PAGE)
    with open(os.path.join(directory, "source"), "rb") as source:
        assert os.copy_file_range(source.fileno(), file.fd, PAGE, 0, size // PAGE * PAGE + 3 * PAGE) == PAGE


GROWINGS = {
    "ftruncate": lambda file, size: os.ftruncate(file.fd, size + 1000),
    "ftruncate by pages": lambda file, size: os.ftruncate(file.fd, size + 10 * PAGE),
    "truncate of a path": lambda file, size: os.truncate(file.path, size + 1000),
    "ftruncate twice": lambda file, size: (os.ftruncate(file.fd, size + 10), os.ftruncate(file.fd, size + 1000)),
    "pwrite in the page": lambda file, size: os.pwrite(file.fd, b"w" * 10, size + 500),
    "pwrite behind the page": lambda file, size: os.pwrite(file.fd, b"w" * 10, size + 5 * PAGE),
    "pwrite at the end": lambda file, size: os.pwrite(file.fd, b"w" * 10, size),
    "pwrite and append": lambda file, size: (os.pwrite(file.fd, b"w" * 10, size + 500), os.pwrite(file.fd, b"w" * 1000, size + 510)),
    "fallocate": lambda file, size: libc.fallocate(file.fd, 0, size + 100, 1000),
    "zero range": lambda file, size: libc.fallocate(file.fd, 0x10, size + 100, 1000),
    "copy_file_range": in_copy,
}
for name, grow in GROWINGS.items():
    grown(name, grow)
    grown(f"{name} of several pages", grow, 3 * PAGE + 17)
    grown(f"{name} after a sync", grow, 100, True)

kept("stored in a gap in the page", PAGE + 2000)
kept("stored in a gap behind the page", 9 * PAGE + 50)

print(json.dumps(results))
