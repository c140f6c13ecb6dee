"""People who list the same directories at once, in every way there is; prints what each of them saw or missed wrongly.

stdin: {"people": {uid: {directory: {"must": names, "may": names}}}, "processes": of each, "listings": of each process}
"""
import ctypes
import json
import os
import random
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
DOTS = {'.', '..'}


def entries(fd, size):
    """What one getdents64(2) gives: name and the position behind it."""
    buffer = ctypes.create_string_buffer(size)
    length = libc.getdents64(fd, buffer, ctypes.c_size_t(size))
    if length < 0:
        raise OSError(ctypes.get_errno(), 'getdents64')
    at, found = 0, []
    while at < length:
        _, position, record = struct.unpack_from('<QqH', buffer, at)
        found.append((os.fsdecode(buffer.raw[at + 19:at + record].split(b'\0')[0]), position))
        at += record
    return found


def rest(fd, size):
    found = []
    while more := entries(fd, size):
        found += more
    return found


class Lister:
    """One process of one person. `positions` are those of listings before, of each directory."""

    def __init__(self, expected, wrong):
        self.expected, self.wrong = expected, wrong
        self.positions = {directory: [] for directory in expected}

    def judge(self, directory, way, found, is_whole):
        must, may = (set(self.expected[directory][one]) for one in ('must', 'may'))
        names = [name for name, _ in found]
        strange = set(names) - must - may - DOTS
        missing = (must | DOTS) - set(names) if is_whole else set()
        twice = len(names) != len(set(names))
        if strange or missing or twice:
            self.wrong.append([directory, way, sorted(strange)[:5], sorted(missing)[:5], twice])

    def list(self, directory):
        way = random.choice(['whole', 'whole', 'small', 'unfinished', 'again', 'sought', 'lost'])
        size = random.choice([80, 128, 300]) if way != 'whole' else 32768
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            getattr(self, way, self.whole)(directory, way, fd, size)
        finally:
            os.close(fd)

    def whole(self, directory, way, fd, size):
        found = rest(fd, size)
        self.judge(directory, way, found, True)
        self.positions[directory] = [position for _, position in found]

    def unfinished(self, directory, way, fd, size):
        self.judge(directory, way, entries(fd, size), False)

    def again(self, directory, way, fd, size):
        entries(fd, size)
        os.lseek(fd, 0, os.SEEK_SET)
        self.whole(directory, way, fd, size)

    def sought(self, directory, way, fd, size):
        found = rest(fd, size)
        at = random.randrange(len(found))
        os.lseek(fd, found[at][1], os.SEEK_SET)
        # What lies before was seen already.
        self.judge(directory, way, found[:at + 1] + rest(fd, size), True)

    def lost(self, directory, way, fd, size):
        """Goes on where an earlier listing was."""
        os.lseek(fd, random.choice(self.positions[directory] or [1]), os.SEEK_SET)
        self.judge(directory, way, rest(fd, size), False)


def run(uid, expected, listings):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    wrong = []
    lister = Lister(expected, wrong)
    for _ in range(listings):
        lister.list(random.choice(list(expected)))
    return wrong


def main():
    given = json.load(sys.stdin)
    children = []
    for uid, expected in given['people'].items():
        for _ in range(given['processes']):
            reader, writer = os.pipe()
            if os.fork() == 0:
                try:
                    answer = run(int(uid), expected, given['listings'])
                except BaseException as failure:
                    answer = [repr(failure)]
                os.write(writer, json.dumps(answer[:20]).encode())
                os._exit(0)
            os.close(writer)
            children.append((uid, reader))
    wrong = []
    for uid, reader in children:
        with open(reader, 'rb') as pipe:
            wrong += [[uid, one] for one in json.loads(pipe.read())]
        os.wait()
    print(json.dumps(wrong))


if __name__ == '__main__':
    main()
