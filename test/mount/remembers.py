"""What a guest (guest.py) remembers of a state: watches, leases, listings."""
import ctypes
import fcntl
import os
import select
import signal
import struct
import threading

libc = ctypes.CDLL(None, use_errno=True)
IN = {
    'MODIFY': 0x2, 'ATTRIB': 0x4, 'CLOSE_WRITE': 0x8, 'MOVED_FROM': 0x40, 'MOVED_TO': 0x80, 'CREATE': 0x100, 'DELETE': 0x200,
    'DELETE_SELF': 0x400, 'MOVE_SELF': 0x800,
}
ISDIR = 0x40000000


class Watch:
    """inotify on some paths, for all that changes."""

    def __init__(self, *paths):
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        self.paths = {}
        for path in paths:
            number = libc.inotify_add_watch(self.fd, os.fsencode(path), sum(IN.values()))
            if number < 0:
                raise OSError(ctypes.get_errno(), path)
            self.paths[number] = path

    def events(self, wait=1.0):
        """What was heard until nothing came for a moment: [path, event, name]."""
        heard = []
        while select.select([self.fd], [], [], wait)[0]:
            data = os.read(self.fd, 1 << 20)
            at = 0
            while at < len(data):
                number, mask, _, length = struct.unpack_from('iIII', data, at)
                name = data[at + 16:at + 16 + length].rstrip(b'\0').decode('latin1')
                kind = '|ISDIR' if mask & ISDIR and name else ''
                heard += [[self.paths.get(number, ''), word + kind, name] for word, bit in IN.items() if mask & bit]
                at += 16 + length
            wait = 0.1
        return heard

    def follow(self, path):
        """Looks at every name that is heard of, and lists the directory, from now on."""
        self.odd = []
        self.following = True

        def run():
            while self.following:
                for _, event, name in self.events(0.2):
                    there = os.path.lexists(f'{path}/{name}')
                    listed = name in os.listdir(path)
                    if name and (event.startswith('CREATE') != there or there != listed) and not event.startswith(('ATTRIB', 'CLOSE', 'MODIFY')):
                        self.odd.append(f'{event} {name}: {there} {listed}')
        self.thread = threading.Thread(target=run)
        self.thread.start()

    def unfollow(self):
        self.following = False
        self.thread.join()
        return self.odd


def lease(path, kind):
    """Takes a lease; `broken` grows by one when the kernel asks for it back."""
    def asked(*_):
        broken.append(fcntl.fcntl(fd, fcntl.F_GETLEASE))
    broken = []
    signal.signal(signal.SIGIO, asked)
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    return broken


def may_lock(path):
    """Whether this process gets locks of either kind that no other has: [flock, fcntl]."""
    got = []
    for lock in (fcntl.flock, fcntl.lockf):
        with open(path, 'r+') as file:
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                got.append(True)
            except BlockingIOError:
                got.append(False)
    return got


class Listing:
    """A directory that is read in small steps (getdents64(2)), as far as is asked for."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.names = []

    def read(self, steps):
        """@returns whether there is more"""
        buffer = ctypes.create_string_buffer(1024)
        for _ in range(steps):
            length = libc.syscall(217, self.fd, buffer, 1024)
            if length < 0:
                raise OSError(ctypes.get_errno(), 'getdents64')
            if length == 0:
                return False
            at = 0
            while at < length:
                size, = struct.unpack_from('H', buffer, at + 16)
                self.names.append(buffer.raw[at + 19:at + size].split(b'\0')[0].decode('latin1'))
                at += size
        return True

    def rest(self, always):
        """Reads on to the end: [names of `always` that are missing, names that are there twice, whether it ended]."""
        ended = not self.read(10000)
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        return [sorted(set(always) - set(self.names)), twice, ended]
