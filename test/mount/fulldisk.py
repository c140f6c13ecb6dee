"""What a mapping and fallocate(2) do on a full disk. Prints one word for each."""
import errno
import mmap
import os
import sys

existing, fresh = sys.argv[1:3]


def attempt(work):
    try:
        work()
        return "fine"
    except OSError as error:
        return errno.errorcode[error.errno]


with open(existing, "r+b") as file:
    mapping = mmap.mmap(file.fileno(), 0)
    before = mapping[:4096]
    for at in range(0, len(mapping), 4096):
        mapping[at : at + 8] = b"dirtied!"
    print("msync", attempt(mapping.flush))
    print("fsync", attempt(lambda: os.fsync(file.fileno())))
    # A page that could not be written back is still mapped: no SIGBUS.
    print("mapped", mapping[:8] == b"dirtied!")
    mapping.close()
    print("fallocate", attempt(lambda: os.posix_fallocate(file.fileno(), 0, 1 << 30)))
# Pages of a hole need room: write-back fails, and is told once.
with open(sys.argv[3], "r+b") as file:
    mapping = mmap.mmap(file.fileno(), 0)
    for at in range(0, len(mapping), 4096):
        mapping[at] = 1
    print("hole", attempt(mapping.flush))
    mapping.close()
print("create", attempt(lambda: os.close(os.open(fresh, os.O_CREAT | os.O_WRONLY))))
