"""What a process has from before it loses a right, for losing.test.ts.

A Person (access.ts) runs this: D is the directory that the right is for, KEPT one of another workspace where the right
stays. What is opened here is used by the rows of losing.test.ts. A row raises OSError when the kernel refuses it.
"""


def imports():
    """As root: an interpreter of root's own may be closed to other users."""
    global array, select, shutil, signal, subprocess, tempfile, threading
    import array
    import select
    import shutil
    import signal
    import subprocess
    import tempfile
    import threading


as_root(imports)
libc.syscall.restype = ctypes.c_long
EMPTY_PATH = 0x1000
NEWUSER, NEWNS = 0x10000000, 0x00020000
#: A uid that no identity names, and the first of those that newuidmap(1) may give.
STRANGER, SUBUID = 1999, 100000


def syscall(number, *words):
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), 'system call %d' % number)
    return result


def call(name, *words):
    result = getattr(libc, name)(*words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def number(x86, generic):
    """Of a system call older than those that have one number on all machines."""
    return x86 if os.uname().machine == 'x86_64' else generic


def apart(action):
    """Runs it in a child, which SIGBUS may end: that is how a mapping refuses."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            action()
            code = 0
        except OSError as failure:
            code = failure.errno
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        raise OSError(errno.EFAULT, 'signal %d' % os.WTERMSIG(status))
    if os.WEXITSTATUS(status) == 255:
        raise RuntimeError('the child failed')
    if status != 0:
        raise OSError(os.WEXITSTATUS(status), 'in a child')


def peek(mapping, at=4096):
    def look():
        if mapping[at] != ord('x'):
            raise RuntimeError('the mapping shows something else')
    apart(look)


def address(mapping):
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def program(*words, **more):
    """A program that must end with 0; its failure is a refusal."""
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    if done.returncode != 0:
        raise OSError(errno.EACCES, words[0])


def execute_open(fd, path=b''):
    """execveat(2): what is open is the program."""
    words = (ctypes.c_char_p * 2)(b'x', None)
    none = (ctypes.c_char_p * 1)(None)
    flags = EMPTY_PATH if path == b'' else 0
    apart(lambda: syscall(number(322, 281), fd, path, words, none, flags))


def threaded(action):
    """As POSIX AIO of glibc does it: the request is another thread's."""
    failures = []

    def run():
        try:
            action()
        except OSError as failure:
            failures.append(failure)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def open_how(path, flags, resolve, at):
    """openat2(2)"""
    how = ctypes.create_string_buffer(struct.pack('<QQQ', flags, 0, resolve), 24)
    os.close(syscall(437, at, os.fsencode(path), how, ctypes.c_size_t(24)))


def handle_of(at, path=b''):
    """name_to_handle_at(2)"""
    handle = ctypes.create_string_buffer(struct.pack('<Ii', 128, 0), 136)
    mount = ctypes.c_int()
    call('name_to_handle_at', at, path, handle, ctypes.byref(mount), EMPTY_PATH if path == b'' else 0)
    return handle


def open_handle(mount, handle, flags):
    os.close(call('open_by_handle_at', mount, handle, flags))


def statx_birth(at, path=b''):
    """statx(2) that asks for the time of birth, which the kernel does not cache."""
    out = ctypes.create_string_buffer(256)
    call('statx', at, path, EMPTY_PATH if path == b'' else 0, 0xFFF, out)


def xattr_by_path(path):
    os.setxattr(path, 'user.n', b'n')
    os.removexattr(path, 'user.n')


def tmpfile(path, name):
    """O_TMPFILE, and a name for it."""
    fd = os.open(path, os.O_TMPFILE | os.O_RDWR)
    try:
        link_open(fd, name)
    finally:
        os.close(fd)


def link_open(fd, path):
    call('linkat', AT_FDCWD, b'/proc/self/fd/%d' % fd, AT_FDCWD, os.fsencode(path), 0x400)
    os.unlink(path)


class Ring:
    """io_uring(7), one request at a time."""
    NAMES = {'fsync': 3, 'read_fixed': 4, 'write_fixed': 5, 'fallocate': 17, 'openat': 18, 'statx': 21, 'read': 22, 'write': 23,
             'openat2': 28, 'splice': 30, 'renameat': 35, 'unlinkat': 36, 'mkdirat': 37, 'symlinkat': 38, 'linkat': 39,
             'fsetxattr': 41, 'setxattr': 42, 'fgetxattr': 43, 'getxattr': 44, 'install': 54, 'ftruncate': 55, 'readv': 1}
    SQPOLL, WAKEUP, GETEVENTS = 2, 2, 1
    FIXED_FILE, ASYNC = 1, 16

    def __init__(self, flags=0):
        params = ctypes.create_string_buffer(struct.pack('<5I', 0, 0, flags, 0, 2000), 120)
        self.fd = syscall(425, 8, params)
        self.flags = flags
        words = struct.unpack('<10I8IQ8IQ', params.raw)
        entries, completions = words[0], words[1]
        self.sq, self.cq = words[10:18], words[19:27]
        size = max(self.sq[6] + entries * 4, self.cq[5] + completions * 16)
        self.ring = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.entries = mmap.mmap(self.fd, entries * 64, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0x10000000)
        self.buffer = mmap.mmap(-1, 8192)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))

    def word(self, at):
        return struct.unpack_from('<I', self.ring, at)[0]

    def register(self, kind, what, count):
        syscall(427, self.fd, kind, what, count)

    def use(self, files):
        """Registers descriptors and a buffer."""
        self.register(2, array.array('i', files).tobytes(), len(files))
        self.register(0, struct.pack('<QQ', self.at, 8192), 1)
        return self

    def do(self, name, fd=AT_FDCWD, off=0, addr=0, length=0, flags=0, source=0, addr3=0, how=0):
        kept = [ctypes.create_string_buffer(one) if isinstance(one, bytes) else None for one in (off, addr, addr3)]
        off, addr, addr3 = [ctypes.addressof(one) if one else value for one, value in zip(kept, (off, addr, addr3))]
        entry = struct.pack('<BBHiQQIIQHHiQQ', self.NAMES[name], how, 0, fd, off, addr, length, flags, 7, 0, 0, source, addr3, 0)
        tail, mask = self.word(self.sq[1]), self.word(self.sq[2])
        self.entries[0:64] = entry
        struct.pack_into('<I', self.ring, self.sq[6] + 4 * (tail & mask), 0)
        struct.pack_into('<I', self.ring, self.sq[1], tail + 1)
        wake = self.WAKEUP if self.flags & self.SQPOLL else 0
        head = self.word(self.cq[0])
        while self.word(self.cq[1]) == head:
            syscall(426, self.fd, 0 if tail == self.word(self.sq[0]) - 1 else 1, 1, self.GETEVENTS | wake, None, ctypes.c_size_t(0))
        _, result, _ = struct.unpack_from('<QiI', self.ring, self.cq[5] + 16 * (head & self.word(self.cq[2])))
        struct.pack_into('<I', self.ring, self.cq[0], head + 1)
        if result < 0:
            raise OSError(-result, name)
        return result

    # What the rows use.
    def open(self, path, flags, at=AT_FDCWD, how=0):
        os.close(self.do('openat', at, 0, os.fsencode(path), 0o666, flags, how=how))

    def open_how(self, path, flags, at=AT_FDCWD):
        os.close(self.do('openat2', at, struct.pack('<QQQ', flags, 0, 0), os.fsencode(path), 24))

    def stat(self, path, at=AT_FDCWD, how=0):
        self.do('statx', at, self.at, os.fsencode(path), 0x7FF, how=how)

    def read(self, fd, how=0, name='read'):
        if self.do(name, fd, 0, self.at, 10, how=how) == 0:
            raise RuntimeError('nothing was read')

    def write(self, fd, how=0, name='write'):
        self.buffer[0:1] = b'x'
        self.do(name, fd, 0, self.at, 1, how=how)

    def rename(self, source, target):
        self.do('renameat', AT_FDCWD, os.fsencode(target), os.fsencode(source), AT_FDCWD & 0xFFFFFFFF)

    def link(self, source, target):
        self.do('linkat', AT_FDCWD, os.fsencode(target), os.fsencode(source), AT_FDCWD & 0xFFFFFFFF)

    def symlink(self, target, path):
        self.do('symlinkat', AT_FDCWD, os.fsencode(path), os.fsencode(target))

    def mkdir(self, path):
        self.do('mkdirat', AT_FDCWD, 0, os.fsencode(path), 0o777)

    def unlink(self, path, flags=0):
        self.do('unlinkat', AT_FDCWD, 0, os.fsencode(path), 0, flags)

    def splice(self, source, pipes):
        self.do('splice', pipes[1], 2**64 - 1, 0, 100, 0, source)
        os.read(pipes[0], 100)

    def install(self, index):
        """A descriptor of a registered file."""
        return self.do('install', index, how=self.FIXED_FILE)


class Asynchronous:
    """io_submit(2), as libaio uses it."""

    def __init__(self):
        self.context = ctypes.c_ulong(0)
        syscall(number(206, 0), 4, ctypes.byref(self.context))
        self.buffer = ctypes.create_string_buffer(4096)

    def do(self, opcode, fd, length):
        # struct iocb of linux/aio_abi.h
        raw = struct.pack('<QIIHHIQQqQII', 0, 0, 0, opcode, 0, fd, ctypes.addressof(self.buffer), length, 0, 0, 0, 0)
        block = ctypes.create_string_buffer(raw, 64)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(block))
        syscall(number(209, 2), self.context, ctypes.c_long(1), pointers)
        event = ctypes.create_string_buffer(32)
        syscall(number(208, 4), self.context, ctypes.c_long(1), ctypes.c_long(1), event, None)
        result = struct.unpack('<QQqq', event.raw)[2]
        if result < 0:
            raise OSError(-result, 'io_submit')

    def read(self, fd):
        self.do(0, fd, 10)

    def write(self, fd):
        self.buffer[0] = b'x'
        self.do(1, fd, 1)


#: What this machine does not have, and why: io_uring and namespaces can be switched off.
absent = {}


def part(name, make):
    try:
        return make()
    except OSError as failure:
        if failure.errno not in (errno.ENOSYS, errno.EPERM, errno.ENOSPC, errno.ENODEV):
            raise
        absent[name] = str(failure)
        return None


class Other:
    """A child that keeps what it has, and runs rows in its own name."""

    def __init__(self, prepare):
        self.here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.here.close()
                self.serve(there, prepare)
            finally:
                os._exit(1)
        there.close()
        self.answer()

    def serve(self, there, prepare):
        try:
            prepare(there)
            libc.prctl(1, signal.SIGKILL)
            if os.getppid() == 1:
                return
            there.send(b'ok')
        except OSError as failure:
            there.send(b'%d' % failure.errno)
            return
        except BaseException as failure:
            there.send(repr(failure).encode())
            return
        for code in iter(lambda: there.recv(65536), b''):
            try:
                exec(compile(code, 'other', 'exec'), globals())
                there.send(b'ok')
            except OSError as failure:
                there.send(b'%d' % failure.errno)
            except Exception as failure:
                there.send(repr(failure).encode())

    def answer(self):
        answer = self.here.recv(65536).decode()
        if answer.isdigit():
            raise OSError(int(answer), 'in another process')
        if answer != 'ok':
            raise RuntimeError(answer or 'the other process has ended')

    def __call__(self, code):
        self.here.send(code.encode())
        self.answer()


def as_uid(uid):
    os.setresuid(0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(4, 1, 0, 0, 0)


def put(path, text):
    with open(path, 'w') as file:
        file.write(text)


def be_stranger(there):
    """Another user's process that is handed descriptors: by a message, and out of the process that has them."""
    os.seteuid(0)
    global sent, sent_rw, taken, taken_rw
    pidfd = os.pidfd_open(os.getppid())
    taken, taken_rw = [syscall(438, pidfd, fd, 0) for fd in (ro, handed)]
    as_uid(STRANGER)
    socket.send_fds(there, [b'ready'], [])
    sent, sent_rw = socket.recv_fds(there, 16, 2)[1]


class Stranger(Other):
    def answer(self):
        if self.here.recv(65536) == b'ready':
            socket.send_fds(self.here, [b'have'], [ro, handed])
            self.answer = super().answer
            self.answer()


def be_root_of_namespace(there):
    """unshare -Ur: a user's own process that has all capabilities over itself. With mounts of what it could enter."""
    uid = os.geteuid()
    os.setresuid(uid, uid, uid)
    libc.prctl(4, 1, 0, 0, 0)
    call('unshare', NEWUSER | NEWNS)
    put('/proc/self/setgroups', 'deny')
    put('/proc/self/uid_map', '0 %d 1' % uid)
    put('/proc/self/gid_map', '0 %d 1' % uid)
    call('mount', b'none', b'/', None, 0x44000, None)
    call('mount', b'tmpfs', b'/mnt', b'tmpfs', 0, None)
    for name in ('bound', 'over', 'upper', 'work'):
        os.mkdir('/mnt/' + name)
    call('mount', os.fsencode(D), b'/mnt/bound', None, 0x1000, None)
    global bound, handle, overlaid
    bound = os.open('/mnt/bound', os.O_RDONLY | os.O_DIRECTORY)
    handle = handle_of(bound)
    words = b'lowerdir=/mnt/bound,upperdir=/mnt/upper,workdir=/mnt/work,userxattr'
    call('mount', b'overlay', b'/mnt/over', b'overlay', 0, words)
    overlaid = os.open('/mnt/over/f', os.O_RDONLY)


def be_mapped(there):
    """A namespace with uids that newuidmap(1) gives. Its root has all capabilities over files of those uids."""
    uid = os.geteuid()
    os.setresuid(uid, uid, uid)
    call('unshare', NEWUSER)
    libc.prctl(4, 1, 0, 0, 0)
    there.send(b'unshared')
    there.recv(16)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def give_uids(pid, uid):
    """What newuidmap(1) does, by itself where it is there: /etc/subuid is replaced for it alone."""
    lines = {'uid': [0, uid, 1, 1, SUBUID, 1000], 'gid': [0, uid, 1, 1, SUBUID, 1000]}
    if shutil.which('newuidmap') is None or shutil.which('newgidmap') is None:
        def write():
            for kind, words in lines.items():
                put('/proc/%d/%s_map' % (pid, kind), ''.join('%d %d %d\n' % tuple(words[i:i + 3]) for i in (0, 3)))
        as_root(write)
        return

    def run():
        os.seteuid(0)
        call('unshare', NEWNS)
        call('mount', b'none', b'/', None, 0x44000, None)
        with tempfile.TemporaryDirectory() as directory:
            texts = {'passwd': 'p%d:x:%d:%d::/:/bin/sh\n' % (uid, uid, uid), 'subuid': '%d:%d:1000\n' % (uid, SUBUID),
                     'subgid': '%d:%d:1000\n' % (uid, SUBUID)}
            for name, text in texts.items():
                if not os.path.exists('/etc/' + name):
                    continue
                put(directory + '/' + name, text)
                os.chmod(directory + '/' + name, 0o644)
                call('mount', os.fsencode(directory + '/' + name), b'/etc/' + name.encode(), None, 0x1000, None)
            for kind, words in lines.items():
                drop = ['setpriv', '--reuid=%d' % uid, '--regid=%d' % uid, '--clear-groups']
                subprocess.run(drop + ['new%smap' % kind, str(pid)] + [str(word) for word in words], check=True)
    apart(run)


class Mapped(Other):
    """Its namespace is given uids between two messages."""

    def answer(self):
        said = self.here.recv(64)
        if said.isdigit():
            raise OSError(int(said), 'no user namespace')
        if said != b'unshared':
            raise RuntimeError(said.decode())
        give_uids(self.pid, os.geteuid())
        self.here.send(b'go')
        self.answer = super().answer
        self.answer()


def inotified(path):
    fd = call('inotify_init1', os.O_NONBLOCK)
    call('inotify_add_watch', fd, os.fsencode(path), 0xFFF)
    return fd


def fanotified(path):
    """fanotify(7) as a user may have it: names in a directory, and what is opened there."""
    # FAN_REPORT_DFID_NAME | FAN_NONBLOCK
    fd = call('fanotify_init', 0xC00 | 2, 0)
    mark(fd, path)
    return fd


def mark(fd, path):
    # FAN_MARK_ADD; FAN_CREATE | FAN_OPEN | FAN_EVENT_ON_CHILD
    call('fanotify_mark', fd, 1, ctypes.c_uint64(0x08000120), AT_FDCWD, os.fsencode(path))


def drain(*fds):
    for fd in fds:
        while fd is not None and select.select([fd], [], [], 0)[0]:
            os.read(fd, 65536)


def heard(fd):
    if not select.select([fd], [], [], 2)[0]:
        raise OSError(errno.EAGAIN, 'nothing was heard')
    os.read(fd, 65536)


def store(mapping):
    """Into a mapping, and to the store."""
    def run():
        mapping[0:1] = b'x'
        mapping.flush()
    apart(run)


def populate(mapping):
    """MADV_POPULATE_READ: a page fault without a signal."""
    mapping.madvise(mmap.MADV_DONTNEED)
    if libc.madvise(ctypes.c_void_p(address(mapping)), ctypes.c_size_t(8192), 22) != 0:
        raise OSError(ctypes.get_errno(), 'madvise')


def by_kernel(mapping):
    """process_vm_readv(2) of this process: the kernel faults the page in."""
    into = ctypes.create_string_buffer(10)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(into), 10)
    remote = (ctypes.c_size_t * 2)(address(mapping) + 4096, 10)
    call('process_vm_readv', os.getpid(), local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0))


def moved(old):
    """mremap(2) to another place; the page is faulted in anew."""
    def run():
        libc.mremap.restype = ctypes.c_void_p
        # MREMAP_MAYMOVE
        at = libc.mremap(ctypes.c_void_p(address(old)), ctypes.c_size_t(8192), ctypes.c_size_t(1 << 20), 1, None)
        if at == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), 'mremap')
        ctypes.string_at(at + 4096, 1)
    apart(run)


def lease(fd, kind):
    fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def locks(fd):
    fcntl.flock(fd, fcntl.LOCK_SH)
    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.lockf(fd, fcntl.LOCK_SH, 10, 0)
    fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)


def ioctl(fd, request):
    fcntl.ioctl(fd, request, ctypes.create_string_buffer(256).raw)


def splice_in(fd):
    """From a pipe into a file."""
    os.write(pipe[1], b'x')
    os.splice(pipe[0], fd, 1, offset_dst=0)


def tee_again():
    """What was put into a pipe before is the pipe's."""
    call('tee', full[0], empty[1], ctypes.c_size_t(100), 0)
    os.read(empty[0], 100)


def vmspliced(mapping):
    """Pages of a mapping into a pipe: the kernel faults them in."""
    words = (ctypes.c_size_t * 2)(address(mapping) + 4096, 10)
    call('vmsplice', pipe[1], words, ctypes.c_ulong(1), 0)
    os.read(pipe[0], 100)


def fiemap(fd):
    # FS_IOC_FIEMAP of the whole file
    fcntl.ioctl(fd, 0xC020660B, struct.pack('<QQIIII', 0, 2**63, 0, 0, 0, 0))


os.chdir(D)
ro = os.open('f', os.O_RDONLY)
handed = os.open('h', os.O_RDWR)
# Before anything else is open for writing: a child has it too, and a file that a stranger may write to is tainted.
stranger = Stranger(be_stranger)
rw = os.open('g', os.O_RDWR)
dir = os.open('.', os.O_RDONLY | os.O_DIRECTORY)
path = os.open('f', os.O_PATH)
dirpath = os.open('.', os.O_PATH)
linkpath = os.open('l', os.O_PATH | os.O_NOFOLLOW)
exe = os.open('x', os.O_RDONLY)
exepath = os.open('x', os.O_PATH)
appending = os.open('g', os.O_WRONLY | os.O_APPEND)
made = os.open('made-by-me', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
mine = os.open('made-by-me', os.O_RDONLY)
os.close(os.open('shared', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
shared = os.open('shared', os.O_RDONLY)
sub = os.open('s', os.O_RDONLY | os.O_DIRECTORY)
unlinked = os.open('unlinked', os.O_CREAT | os.O_EXCL | os.O_RDWR)
os.pwrite(unlinked, b'x' * 8192, 0)
os.unlink('unlinked')
nameless = os.open('.', os.O_TMPFILE | os.O_RDWR)
os.pwrite(nameless, b'x' * 8192, 0)
mapping = mmap.mmap(ro, 8192, mmap.MAP_SHARED, mmap.PROT_READ)
private = mmap.mmap(ro, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
copied = mmap.mmap(ro, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
copied[4096] = ord('x')
writable = mmap.mmap(rw, 8192, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
memory = os.memfd_create('out')
kept = os.open(KEPT + '/kept', os.O_CREAT | os.O_RDWR)
os.pwrite(kept, b'k' * 8192, 0)
pipe = os.pipe()
full = os.pipe()
os.splice(ro, full[1], 100, offset_src=0)
empty = os.pipe()
ring = part('ring', lambda: Ring().use([ro, rw]))
polled = part('polled', lambda: Ring(Ring.SQPOLL).use([ro, rw]))
aio = part('aio', Asynchronous)
inotify = inotified(D)
fanotify = part('fanotify', lambda: fanotified(D))
spare = call('inotify_init1', 0)
child = Other(lambda there: None)
namespaced = part('namespaced', lambda: Other(be_root_of_namespace))
mapped = part('mapped', lambda: Mapped(be_mapped))
