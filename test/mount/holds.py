"""Holds a file in one of the ways in which a process can: WAY FILE UID. Prints a line when it does, and ends with its stdin."""
import ctypes
import mmap
import os
import socket
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
CLONE_FILES = 0x400
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
way, path, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
kept = []


def call(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), way)


def become():
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def opened(flags):
    fd = os.open(path, flags)
    kept.append(fd)
    return fd


def mapped(flags, sharing, protection):
    # Python's own keeps the descriptor.
    fd = os.open(path, flags)
    libc.mmap.restype = ctypes.c_void_p
    if libc.mmap(None, ctypes.c_size_t(4096), protection, sharing, fd, ctypes.c_long(0)) in (None, 2**64 - 1):
        raise OSError(ctypes.get_errno(), path)
    os.close(fd)


def in_thread(action):
    done, end = threading.Event(), threading.Event()

    def run():
        action()
        done.set()
        end.wait()

    threading.Thread(target=run, daemon=True).start()
    done.wait()


def apart():
    call(libc.unshare(CLONE_FILES))
    opened(os.O_RDWR)


def as_other():
    # setresuid(2) itself: libc's would change all threads.
    call(libc.syscall(117, uid, uid, uid))


def elsewhere():
    call(libc.unshare(CLONE_NEWNS))
    call(libc.mount(None, b'/', None, MS_REC | MS_PRIVATE, None))
    place = b'/var/tmp'
    call(libc.mount(os.fsencode(os.path.dirname(path)), place, None, MS_BIND, None))
    kept.append(os.open(os.path.join('/var/tmp', os.path.basename(path)), os.O_RDWR))
    call(libc.umount2(place, MNT_DETACH))


def passed():
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        fd = os.open(path, os.O_WRONLY)
        socket.send_fds(theirs, [b'x'], [fd])
        os._exit(0)
    os.waitpid(pid, 0)
    kept.extend(socket.recv_fds(ours, 1, 1)[1])


def ready():
    print('ready', flush=True)
    sys.stdin.read()
    os._exit(0)


def without_leader():
    threading.Thread(target=ready).start()
    libc.pthread_exit(None)


R, W = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
WAYS = {
    'nothing': lambda: None,
    'read': lambda: opened(os.O_RDONLY),
    'path': lambda: opened(os.O_PATH),
    'write': lambda: opened(os.O_WRONLY),
    'append': lambda: opened(os.O_WRONLY | os.O_APPEND),
    'both': lambda: opened(os.O_RDWR),
    'map read': lambda: mapped(os.O_RDONLY, mmap.MAP_SHARED, R),
    'map private': lambda: mapped(os.O_RDWR, mmap.MAP_PRIVATE, W),
    'map shared': lambda: mapped(os.O_RDWR, mmap.MAP_SHARED, W),
    'map to be made writable': lambda: mapped(os.O_RDWR, mmap.MAP_SHARED, R),
    'thread': lambda: in_thread(lambda: opened(os.O_RDWR)),
    'thread apart': lambda: in_thread(apart),
    'detached mount': elsewhere,
    'passed': passed,
    'without leader': lambda: opened(os.O_RDWR),
    'thread of another uid': lambda: (opened(os.O_RDWR), in_thread(as_other)),
}

WAYS[way]()
if way == 'without leader':
    become()
    without_leader()
if way != 'thread of another uid':
    become()
ready()
