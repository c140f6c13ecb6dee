"""Does anything that a program does in a directory, over and over, while somebody restores it.

argv: directory, seed. Errors that a restore may bring are part of the game; others end the program with status 1.
SIGTERM ends it; then it prints how many rounds it made.
"""
import ctypes
import errno
import os
import random
import signal
import sys

# Nobody else would end it if the test were killed.
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
directory, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ESTALE, errno.ENOTDIR, errno.EISDIR, errno.ENODEV, errno.EXDEV,
            errno.EINVAL}
rounds = 0
ended = False


def end(*_):
    global ended
    ended = True


signal.signal(signal.SIGTERM, end)


def name():
    return '%s/d%d/f%d' % (directory, random.randrange(6), random.randrange(12))


def folder():
    return '%s/d%d' % (directory, random.randrange(6))


def write():
    with open(name(), 'ab' if random.random() < 0.5 else 'wb') as file:
        file.write(os.urandom(random.randrange(1, 20000)))


def read():
    with open(name(), 'rb') as file:
        file.read()


def listing():
    for entry in os.scandir(folder()):
        entry.stat()


def patch():
    fd = os.open(name(), os.O_RDWR)
    try:
        os.pwrite(fd, b'x' * 10, os.fstat(fd).st_size // 2)
    finally:
        os.close(fd)


def inside():
    os.chdir(folder())
    os.listdir('.')
    try:
        os.getcwd()
    finally:
        os.chdir('/')


ACTIONS = [write, read, listing, patch, inside, lambda: os.rename(name(), name()), lambda: os.unlink(name()),
           lambda: os.link(name(), name()), lambda: os.mkdir(folder()), lambda: os.rmdir(folder()),
           lambda: os.symlink('x', name()), lambda: os.chmod(name(), 0o600), lambda: os.truncate(name(), 5)]
while not ended:
    rounds += 1
    try:
        random.choice(ACTIONS)()
    except OSError as failure:
        if failure.errno not in EXPECTED:
            print(repr(failure), file=sys.stderr)
            sys.exit(1)
print(rounds)
