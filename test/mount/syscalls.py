"""Runs system calls that Node has no API for.

stdin: a JSON list of calls [name, argument...]; stdout: a JSON list with what each returned, or the
name of its errno. Paths are relative to the directory in argv[1]; in any text a character is a byte
(latin1), so that names need not be UTF-8. Files are opened under a label that later calls name.
"""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400
UTIME = {'now': 0x3FFFFFFF, 'omit': 0x3FFFFFFE}
ACL_TAGS = {'u': (0x01, 0x02), 'g': (0x04, 0x08), 'm': (0x10, 0x10), 'o': (0x20, 0x20)}
NO_ID = 0xFFFFFFFF
fds = {}
maps = {}


def raw(text):
    return text.encode('latin1')


def bits(module, words):
    """Flags as a number, or by their names: 'O_RDWR O_CREAT'."""
    return words if isinstance(words, int) else sum(getattr(module, word) for word in words.split())


def libc_call(name, *args):
    result = getattr(libc, name)(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def pick(st, fields):
    """One field of a stat alone, several as a list."""
    values = [value(st, field) for field in fields]
    return values[0] if len(values) == 1 else values


def value(st, field):
    if field == 'perm':
        return '%04o' % (st.st_mode & 0o7777)
    if field == 'type':
        return '%06o' % (st.st_mode & 0o170000)
    if field in ('atime_ns', 'mtime_ns', 'ctime_ns'):
        return str(getattr(st, 'st_' + field))
    return getattr(st, 'st_' + field)


class Timespec(ctypes.Structure):
    _fields_ = [('s', ctypes.c_long), ('ns', ctypes.c_long)]


def timespec(time):
    if time in UTIME:
        return Timespec(0, UTIME[time])
    return Timespec(*divmod(int(time), 10**9))


def encode_acl(text):
    """'u::rwx u:1000:r-x g::--- m::rwx o::---' as the kernel takes it (linux/posix_acl_xattr.h)."""
    entries = []
    for word in text.split():
        tag, who, perms = word.split(':')
        number = sum(4 >> 'rwx'.index(letter) for letter in perms if letter != '-')
        entries.append((ACL_TAGS[tag][who != ''], number, int(who) if who else NO_ID))
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in sorted(entries))


def decode_acl(data):
    names = {tag: letter for letter, tags in ACL_TAGS.items() for tag in tags}
    words = []
    for at in range(4, len(data), 8):
        tag, number, who = struct.unpack_from('<HHI', data, at)
        perms = ''.join(letter if number & 4 >> i else '-' for i, letter in enumerate('rwx'))
        words.append('%s:%s:%s' % (names[tag], '' if who == NO_ID else who, perms))
    return ' '.join(words)


class Calls:
    # Who makes the calls that follow: another uid is a caller without capabilities.
    def become(self, uid, gid=None, groups=()):
        os.seteuid(0)
        os.setgroups(list(groups))
        os.setegid(uid if gid is None else gid)
        os.seteuid(uid)

    def umask(self, mask):
        os.umask(mask)

    def chdir(self, path):
        os.chdir(raw(path))

    def getcwd(self):
        return os.getcwdb().decode('latin1')

    # Names.
    def mkdir(self, path, mode=0o755):
        os.mkdir(raw(path), mode)

    def rmdir(self, path):
        os.rmdir(raw(path))

    def unlink(self, path):
        os.unlink(raw(path))

    def link(self, source, target):
        os.link(raw(source), raw(target), follow_symlinks=False)

    def link_open(self, label, target):
        """Gives a name to what is open, as O_TMPFILE is meant to be used."""
        source = b'/proc/self/fd/%d' % fds[label]
        libc_call('linkat', AT_FDCWD, source, AT_FDCWD, raw(target), AT_SYMLINK_FOLLOW)

    def symlink(self, target, path):
        os.symlink(raw(target), raw(path))

    def readlink(self, path):
        return os.readlink(raw(path)).decode('latin1')

    def rename(self, source, target, flags=0):
        libc_call('renameat2', AT_FDCWD, raw(source), AT_FDCWD, raw(target), flags)

    def mkfifo(self, path, mode=0o644):
        os.mkfifo(raw(path), mode)

    def mknod(self, path, mode, major=0, minor=0):
        os.mknod(raw(path), mode, os.makedev(major, minor))

    def listdir(self, path='.'):
        return sorted(name.decode('latin1') for name in os.listdir(raw(path)))

    # Attributes.
    def stat(self, path, *fields):
        return pick(os.stat(raw(path)), fields)

    def lstat(self, path, *fields):
        return pick(os.lstat(raw(path)), fields)

    def fstat(self, label, *fields):
        return pick(os.fstat(fds[label]), fields)

    def device(self, path):
        rdev = os.stat(raw(path)).st_rdev
        return [os.major(rdev), os.minor(rdev)]

    def access(self, path, words):
        return os.access(raw(path), bits(os, words), effective_ids=True)

    def chmod(self, path, mode):
        os.chmod(raw(path), mode)

    def fchmod(self, label, mode):
        os.fchmod(fds[label], mode)

    def chown(self, path, uid, gid):
        os.chown(raw(path), uid, gid)

    def fchown(self, label, uid, gid):
        os.fchown(fds[label], uid, gid)

    def lchown(self, path, uid, gid):
        os.lchown(raw(path), uid, gid)

    def utimensat(self, path, atime, mtime, follow=True):
        """Times are nanoseconds as text (they do not fit into a JSON number), 'now' or 'omit'."""
        times = (Timespec * 2)(timespec(atime), timespec(mtime))
        libc_call('utimensat', AT_FDCWD, raw(path), times, 0 if follow else 0x100)

    def statvfs(self, path, *fields):
        result = os.statvfs(raw(path))
        return [getattr(result, 'f_' + field) for field in fields]

    # Extended attributes and ACLs.
    def setxattr(self, path, name, text, flags=0):
        os.setxattr(raw(path), raw(name), raw(text), flags, follow_symlinks=False)

    def getxattr(self, path, name):
        return os.getxattr(raw(path), raw(name), follow_symlinks=False).decode('latin1')

    def listxattr(self, path):
        return sorted(os.listxattr(raw(path), follow_symlinks=False))

    def removexattr(self, path, name):
        os.removexattr(raw(path), raw(name), follow_symlinks=False)

    def setfacl(self, path, kind, text):
        os.setxattr(raw(path), 'system.posix_acl_' + kind, encode_acl(text))

    def getfacl(self, path, kind):
        return decode_acl(os.getxattr(raw(path), 'system.posix_acl_' + kind))

    def removefacl(self, path, kind):
        os.removexattr(raw(path), 'system.posix_acl_' + kind)

    # Data.
    def open(self, label, path, words, mode=0o644):
        fds[label] = os.open(raw(path), bits(os, words), mode)

    def create(self, path, text='', mode=0o644):
        fd = os.open(raw(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.write(fd, raw(text))
        finally:
            os.close(fd)

    def content(self, path):
        with open(raw(path), 'rb') as file:
            return file.read().decode('latin1')

    def close(self, label):
        os.close(fds.pop(label))

    def read(self, label, length):
        return os.read(fds[label], length).decode('latin1')

    def write(self, label, text):
        return os.write(fds[label], raw(text))

    def pread(self, label, length, offset):
        return os.pread(fds[label], length, int(offset)).decode('latin1')

    def pwrite(self, label, text, offset):
        return os.pwrite(fds[label], raw(text), int(offset))

    def truncate(self, path, length):
        os.truncate(raw(path), int(length))

    def ftruncate(self, label, length):
        os.ftruncate(fds[label], int(length))

    def lseek(self, label, offset, words):
        return os.lseek(fds[label], int(offset), bits(os, words))

    def fsync(self, label):
        os.fsync(fds[label])

    def fdatasync(self, label):
        os.fdatasync(fds[label])

    def posix_fallocate(self, label, offset, length):
        os.posix_fallocate(fds[label], offset, length)

    def fallocate(self, label, mode, offset, length):
        libc_call('fallocate', fds[label], mode, ctypes.c_long(int(offset)), ctypes.c_long(int(length)))

    def copy_file_range(self, source, target, length, source_at, target_at):
        return os.copy_file_range(fds[source], fds[target], length, source_at, target_at)

    def mmap(self, label, length):
        maps[label] = mmap.mmap(fds[label], length)

    def map_write(self, label, offset, text):
        maps[label][offset:offset + len(text)] = raw(text)

    def map_read(self, label, offset, length):
        return maps[label][offset:offset + length].decode('latin1')

    def msync(self, label):
        maps[label].flush()

    def flock(self, label, words):
        fcntl.flock(fds[label], bits(fcntl, words))

    def lockf(self, label, words, length, start):
        fcntl.lockf(fds[label], bits(fcntl, words), length, start)


def run(call):
    try:
        return getattr(Calls, call[0])(calls, *call[1:])
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


if __name__ == '__main__':
    os.chdir(sys.argv[1])
    os.umask(0)
    calls = Calls()
    print(json.dumps([run(call) for call in json.load(sys.stdin.buffer)]))
