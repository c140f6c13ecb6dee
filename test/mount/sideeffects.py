"""What the kernel believes right after an operation, of all that the operation touched: DIR UID [VIEW].

Each row is made anew, looked at until everything is cached, and run; then each thing is looked at in one way, so that no look
refreshes what another sees. Prints a JSON object: row -> view -> what is seen.
"""
import ctypes
import errno
import json
import mmap
import os
import shutil
import struct
import sys
import time

base, uid = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
PROGRAM = '/usr/bin/id'
SIZE = os.path.getsize(PROGRAM)
KEEP, PUNCH, ZERO = 1, 2, 16
CAPABILITY = struct.pack('<IIIII', 0x02000001, 1 << 12, 0, 0, 0)
NEW, ROOT = 8192, 'root'


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def use(path, flags, action):
    fd = os.open(path, flags)
    try:
        return action(fd)
    finally:
        os.close(fd)


def aligned(data):
    memory = mmap.mmap(-1, 4096)
    memory[: len(data)] = data
    return memory


def same(path, offset=0, length=4096):
    return use(PROGRAM, os.O_RDONLY, lambda fd: os.pread(fd, length, offset))


def fallocate(mode, offset, length):
    return lambda p: use(p.f, os.O_RDWR, lambda fd: check(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length))))


def copied(p):
    use(p.g, os.O_RDONLY, lambda i: use(p.f, os.O_WRONLY, lambda o: os.copy_file_range(i, o, 4096, 0, 0)))


def spliced(p):
    a, b = os.pipe()
    os.write(b, same(p.f)[:1000])
    use(p.f, os.O_WRONLY, lambda o: os.splice(a, o, 1000, offset_dst=0))


def sent(p):
    use(p.g, os.O_RDONLY, lambda i: use(p.f, os.O_WRONLY, lambda o: os.sendfile(o, i, 0, 4096)))


def store(p):
    def run(fd):
        memory = mmap.mmap(fd, 4096)
        memory[0:4] = memory[0:4]
        memory.flush()
        memory.close()

    use(p.f, os.O_RDWR, run)


def acl(p, perm):
    entries = [(1, 7, 2**32 - 1), (2, perm, 1234), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 5, 2**32 - 1)]
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)


def exchange(a, b):
    check(libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2))


def write(data=None, offset=0, flags=os.O_WRONLY):
    return lambda p: use(p.f, flags, lambda fd: os.pwrite(fd, data or same(p.f), offset))


def direct(p):
    use(p.f, os.O_WRONLY | os.O_DIRECT, lambda fd: os.pwrite(fd, aligned(same(p.f)), 0))


# Whoever runs it: the user, or root; and the operation.
ROWS = {
    'write': (uid, write()),
    'write of root': (0, write()),
    'write behind the end': (uid, write(b'x', SIZE + 10)),
    'append': (uid, lambda p: use(p.f, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b'x'))),
    'write of nothing': (uid, lambda p: use(p.f, os.O_WRONLY, lambda fd: os.write(fd, b''))),
    'direct write': (uid, direct),
    'synchronous write': (uid, write(flags=os.O_WRONLY | os.O_SYNC)),
    'pwritev2': (uid, lambda p: use(p.f, os.O_WRONLY, lambda fd: os.pwritev(fd, [same(p.f)[:100]], 0, os.RWF_DSYNC))),
    'store in a mapping': (uid, store),
    'splice': (uid, spliced),
    'sendfile': (uid, sent),
    'fallocate': (uid, fallocate(0, 0, SIZE + 5000)),
    'fallocate that keeps the size': (uid, fallocate(KEEP, 0, SIZE + 5000)),
    'fallocate inside': (uid, fallocate(0, 0, 4096)),
    'punch behind the end': (uid, fallocate(KEEP | PUNCH, SIZE + 8192, 4096)),
    'zero behind the end': (uid, fallocate(KEEP | ZERO, SIZE + 8192, 4096)),
    'fallocate of root': (0, fallocate(0, 0, SIZE + 5000)),
    'copy_file_range': (uid, copied),
    'copy_file_range of root': (0, copied),
    'truncate to the same size': (uid, lambda p: os.truncate(p.f, SIZE)),
    'truncate to more': (uid, lambda p: os.truncate(p.f, SIZE + 4096)),
    'ftruncate to more': (uid, lambda p: use(p.f, os.O_WRONLY, lambda fd: os.ftruncate(fd, SIZE + 1))),
    'truncate of root': (0, lambda p: os.truncate(p.f, SIZE + 4096)),
    'write through the descriptor that made it': (uid, lambda p: os.pwrite(p.made, same(p.f), 0)),
    'chown to another': (0, lambda p: os.chown(p.f, uid, -1)),
    'chown of the group': (0, lambda p: os.chown(p.f, -1, uid)),
    'chmod': (0, lambda p: os.chmod(p.f, 0o755)),
    'chmod that sets': (0, lambda p: os.chmod(p.g, 0o6755)),
    'utimes': (0, lambda p: os.utime(p.f, (1000, 2000))),
    'touch': (0, lambda p: os.utime(p.f)),
    'link': (0, lambda p: os.link(p.f, p.d + '/l')),
    'unlink of another name': (0, lambda p: os.unlink(p.h)),
    'rename': (0, lambda p: os.rename(p.g, p.d + '/n')),
    'rename over it': (0, lambda p: os.rename(p.g, p.h)),
    'exchange': (0, lambda p: exchange(p.f, p.g)),
    'rename of a directory': (0, lambda p: os.rename(p.e, p.d + '/e')),
    'rename over a directory': (0, lambda p: os.rename(p.d, p.e)),
    'mkdir': (0, lambda p: os.mkdir(p.d + '/n')),
    'rmdir': (0, lambda p: os.rmdir(p.e)),
    'create': (uid, lambda p: use(p.d + '/n', os.O_CREAT | os.O_RDWR, lambda fd: None)),
    'mknod': (0, lambda p: os.mkfifo(p.d + '/n')),
    'symlink': (0, lambda p: os.symlink('x', p.d + '/n')),
    'setxattr': (0, lambda p: os.setxattr(p.f, 'user.a', b'1')),
    'removexattr': (0, lambda p: os.removexattr(p.f, 'user.was')),
    'setxattr of an ACL': (0, lambda p: os.setxattr(p.f, 'system.posix_acl_access', acl(p, 7))),
    'removexattr of an ACL': (0, lambda p: os.removexattr(p.g, 'system.posix_acl_access')),
    'chmod where there is an ACL': (0, lambda p: os.chmod(p.g, 0o700)),
    'setxattr of a default ACL': (0, lambda p: os.setxattr(p.d, 'system.posix_acl_default', acl(p, 7))),
    'setxattr of a capability': (0, lambda p: os.setxattr(p.g, 'security.capability', CAPABILITY)),
}


class Place:
    """f is a set-uid program with three names (h, held), g an ordinary one with an ACL, d and e are directories."""

    def __init__(self, number, keeps):
        self.top = f'{base}/{number}'
        os.mkdir(self.top)
        os.chmod(self.top, 0o777)
        self.f, self.g, self.h, self.d, self.e = (f'{self.top}/{name}' for name in 'fghde')
        for directory in (self.d, self.e):
            os.mkdir(directory)
            os.chmod(directory, 0o2777)
        self.made = os.open(self.f, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o777)
        with open(PROGRAM, 'rb') as program:
            os.write(self.made, program.read())
        if not keeps:
            os.close(self.made)
            self.made = None
        shutil.copyfile(PROGRAM, self.g)
        os.link(self.f, self.h)
        os.chmod(self.g, 0o755)
        # A workspace takes no such ACL.
        answer(lambda: os.setxattr(self.g, 'system.posix_acl_access', acl(self, 5)))
        os.setxattr(self.f, 'user.was', b'there')
        os.setxattr(self.f, 'security.capability', CAPABILITY)
        os.chmod(self.f, 0o6777)
        for path in (self.top, self.f, self.g, self.h, self.d, self.e):
            os.utime(path, (100, 200))
        self.began = 0
        self.fds = {name: os.open(getattr(self, name), os.O_RDONLY) for name in 'fgde'}

    def close(self):
        for fd in self.fds.values():
            os.close(fd)


def ran(path):
    """The euid that a program gets when the user executes it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(uid)
        os.dup2(writer, 1)
        os.dup2(os.open('/dev/null', os.O_WRONLY), 2)
        try:
            os.execv(path, [path, '-u'])
        except OSError as failure:
            os.write(1, errno.errorcode[failure.errno].encode())
        os._exit(0)
    os.close(writer)
    said = b''.join(iter(lambda: os.read(reader, 100), b'')).decode().strip()
    os.close(reader)
    os.waitpid(pid, 0)
    return said


def become(other):
    if other:
        os.setgroups([])
        os.setresgid(other, other, other)
        os.setresuid(other, other, other)


def attributes(stat, began):
    isdir = stat.st_mode & 0o170000 == 0o040000
    return {
        'mode': oct(stat.st_mode),
        'nlink': None if isdir else stat.st_nlink,
        'owner': [stat.st_uid, stat.st_gid],
        'size': None if isdir else stat.st_size,
        'mtime': int(stat.st_mtime) if stat.st_mtime < 10000 else 'now',
        'ctime': stat.st_ctime_ns > began,
    }


def answer(look):
    try:
        return look()
    except OSError as failure:
        return errno.errorcode[failure.errno]


def xattrs(path):
    return {name: os.getxattr(path, name).hex() for name in sorted(os.listxattr(path)) if name != 'security.selinux'}


VIEWS = {
    'execve': lambda p: [answer(lambda: ran(p.f)), answer(lambda: ran(p.g))],
    'stat': lambda p: {name: answer(lambda: attributes(os.lstat(getattr(p, name)), p.began)) for name in ('f', 'g', 'h', 'd', 'e', 'top')},
    'fstat': lambda p: {name: attributes(os.fstat(fd), p.began) for name, fd in p.fds.items()},
    'access': lambda p: [may(getattr(p, name), bits) for name in 'fgd' for bits in (4, 2, 1)],
    'xattrs and lists': lambda p: {name: answer(lambda: xattrs(getattr(p, name))) for name in 'fgd'}
    | {f'in {name}': answer(lambda: sorted(os.listdir(getattr(p, name)))) for name in ('top', 'd', 'e')},
}


def may(path, bits):
    os.setegid(uid)
    os.seteuid(uid)
    try:
        return answer(lambda: os.access(path, bits, effective_ids=True))
    finally:
        os.seteuid(0)
        os.setegid(0)


def done(action, other, place):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(other)
        os.write(writer, str(answer(lambda: action(place) and None)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    said = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    return said


os.umask(0)
os.setgroups([])
seen, number = {}, 0
for row, (other, action) in ROWS.items():
    for view, look in VIEWS.items():
        if view not in sys.argv[3:] and len(sys.argv) > 3:
            continue
        number += 1
        place = Place(number, 'that made it' in row)
        for warm in VIEWS.values():
            warm(place)
        # Longer than the steps in which ext4 counts time.
        time.sleep(0.01)
        place.began = time.time_ns()
        time.sleep(0.01)
        result = done(action, other, place)
        if place.made is not None:
            os.close(place.made)
        seen.setdefault(row, {})[view] = {'result': result, 'seen': look(place)}
        place.close()
print(json.dumps(seen))
