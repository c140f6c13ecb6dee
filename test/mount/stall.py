"""Holds a lock of the kernel for as long as it runs: memory that a system call fills, or reads, is a mapped file of a FUSE
server that never answers READ. Whoever may open /dev/fuse can do it.

argv: an empty directory to mount on, uid, how, path
how: `list`   getdents(2) of a directory fills the memory: the directory is locked (and, if the kernel serves the listing
              from its cache, the page of the listing)
     `write`  write(2) reads the memory: the file is locked
stdout: "held" when the lock is held. SIGTERM ends it, and lets go.
"""
import ctypes
import mmap
import os
import signal
import stat
import struct
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(1, signal.SIGKILL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
mountpoint, uid, how, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
NR_GETDENTS64 = 217 if os.uname().machine == 'x86_64' else 61
MNT_DETACH = 2
LOOKUP, FORGET, GETATTR, OPEN, READ, INIT, BATCH_FORGET = 1, 2, 3, 14, 15, 26, 42
ENOSYS = 38
SIZE = 1 << 16


def attr(node):
    kind = stat.S_IFDIR | 0o755 if node == 1 else stat.S_IFREG | 0o666
    return struct.pack('<6Q10I', node, SIZE, 8, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0)


def serve(device):
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError:
            return
        _, opcode, unique, node = struct.unpack_from('<IIQQ', request)
        answer, error = b'', 0
        if opcode == INIT:
            answer = struct.pack('<4I2H2I2H8I', 7, 31, 0, 0, 12, 9, 4096, 1, 1, 0, *[0] * 8)
        elif opcode == LOOKUP:
            answer = struct.pack('<4Q2I', 2, 0, 1, 1, 0, 0) + attr(2)
        elif opcode == GETATTR:
            answer = struct.pack('<QII', 1, 0, 0) + attr(node)
        elif opcode == OPEN:
            answer = struct.pack('<QII', 0, 0, 0)
        elif opcode == READ:
            os.write(1, b'held\n')
            continue
        elif opcode in (FORGET, BATCH_FORGET):
            continue
        else:
            error = -ENOSYS
        os.write(device, struct.pack('<IiQ', 16 + len(answer), error, unique) + answer)


def hold():
    """In a process of its own: what holds the lock is not what serves."""
    libc.prctl(1, signal.SIGKILL)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    memory = os.open(mountpoint + '/f', os.O_RDWR)
    mapped = mmap.mmap(memory, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    if how == 'list':
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        libc.syscall(NR_GETDENTS64, fd, ctypes.c_void_p(address), ctypes.c_size_t(SIZE))
    else:
        fd = os.open(path, os.O_WRONLY)
        libc.write(fd, ctypes.c_void_p(address), ctypes.c_size_t(4096))


device = os.open('/dev/fuse', os.O_RDWR | os.O_CLOEXEC)
options = b'fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other' % device
if libc.mount(b'stall', os.fsencode(mountpoint), b'fuse.stall', 0, options) != 0:
    raise OSError(ctypes.get_errno(), 'mount')
threading.Thread(target=serve, args=(device,), daemon=True).start()
child = os.fork()
if child == 0:
    os.close(device)
    hold()
    os._exit(0)
signal.sigwait([signal.SIGTERM])
libc.umount2(os.fsencode(mountpoint), MNT_DETACH)
# The last descriptor: what waits for READ is told.
os._exit(0)
