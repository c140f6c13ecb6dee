"""Prints everything about a directory tree that can be seen and is not its number: one line a name."""
import hashlib
import os
import stat
import sys

top = os.fsencode(sys.argv[1])
links = {}


def content(path, info):
    """Digest of the bytes and where its data lies."""
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(path).decode('latin1')
    if not stat.S_ISREG(info.st_mode):
        return '-'
    fd = os.open(path, os.O_RDONLY)
    digest = hashlib.sha256()
    extents = []
    at = 0
    while at < info.st_size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        extents.append((start, at))
        left = start
        while left < at:
            data = os.pread(fd, min(1 << 20, at - left), left)
            if not data:
                break
            digest.update(b'%d:' % left + data)
            left += len(data)
    os.close(fd)
    return '%s %s' % (digest.hexdigest()[:16], extents[:8])


def describe(path, shown):
    info = os.lstat(path)
    xattrs = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False))]
    twin = links.setdefault(info.st_ino, shown)
    print(shown.decode('latin1'), oct(info.st_mode), info.st_nlink, info.st_uid, info.st_gid, info.st_rdev,
          '-' if stat.S_ISDIR(info.st_mode) else info.st_size, info.st_blocks, info.st_atime_ns, info.st_mtime_ns,
          twin.decode('latin1') if info.st_nlink > 1 else '-', content(path, info), xattrs)
    return info


def walk(path, shown):
    if stat.S_ISDIR(describe(path, shown).st_mode):
        for name in sorted(os.listdir(path)):
            walk(os.path.join(path, name), os.path.join(shown, name))


walk(top, b'.')
