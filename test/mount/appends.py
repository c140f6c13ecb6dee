"""Ways to write at, and to ask for, the end of a file. Each writer takes a path, opens what it needs once, and returns a function that appends."""
import ctypes
import mmap
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SYS = {'io_setup': 206, 'io_getevents': 208, 'io_submit': 209, 'io_uring_setup': 425, 'io_uring_enter': 426}


def system(name, *args):
    result = libc.syscall(SYS[name], *[ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def opened(path, flags=os.O_APPEND):
    return os.open(path, os.O_RDWR | flags)


def by_write(path):
    fd = opened(path)
    return lambda data: os.write(fd, data)


def by_pwrite(path):
    fd = opened(path)
    return lambda data: os.pwrite(fd, data, 0)


def by_writev(path):
    fd = opened(path)
    return lambda data: os.writev(fd, [data[:1], data[1:]])


def by_rwf_append(path):
    fd = opened(path, 0)
    return lambda data: os.pwritev(fd, [data], 0, os.RWF_APPEND)


def by_o_sync(path):
    fd = opened(path, os.O_APPEND | os.O_SYNC)
    return lambda data: os.write(fd, data)


def by_o_direct(path):
    fd = opened(path, os.O_APPEND | os.O_DIRECT)
    return lambda data: os.write(fd, data)


def by_fcntl_append(path):
    import fcntl

    fd = opened(path, 0)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return lambda data: os.write(fd, data)


def by_maker(path):
    """Whoever made the file for writing only: its descriptor is past the page cache."""
    os.rename(path, path + '.was')
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
    with open(path + '.was', 'rb') as was:
        os.write(fd, was.read())
    os.unlink(path + '.was')
    return lambda data: os.write(fd, data)


def by_aio(path):
    fd = opened(path)
    context = ctypes.c_ulong(0)
    system('io_setup', 8, ctypes.byref(context))

    def append(data):
        buffer = ctypes.create_string_buffer(data, len(data))
        # struct iocb: PWRITE is 1
        control = ctypes.create_string_buffer(
            struct.pack('<QIiHhIQQqQII', 1, 0, 0, 1, 0, fd, ctypes.addressof(buffer), len(data), 0, 0, 0, 0)
        )
        pointer = ctypes.c_void_p(ctypes.addressof(control))
        system('io_submit', context.value, 1, ctypes.byref(pointer))
        event = ctypes.create_string_buffer(32)
        system('io_getevents', context.value, 1, 1, event, None)
        return struct.unpack('<QQqq', event.raw)[2]

    return append


def by_io_uring(path):
    fd = opened(path)
    params = ctypes.create_string_buffer(120)
    ring = system('io_uring_setup', 4, params)
    at = struct.unpack_from('<10I', params, 40)  # sq_off: head, tail, mask, entries, flags, dropped, array
    cq = struct.unpack_from('<10I', params, 80)  # cq_off: head, tail, mask, entries, overflow, cqes
    rings = mmap.mmap(ring, 4096, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0)
    completions = mmap.mmap(ring, 4096, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0x8000000)
    entries = mmap.mmap(ring, 4096, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0x10000000)

    def append(data):
        buffer = ctypes.create_string_buffer(data, len(data))
        tail = struct.unpack_from('<I', rings, at[1])[0]
        index = tail & struct.unpack_from('<I', rings, at[2])[0]
        # IORING_OP_WRITE is 23; the position is the descriptor's own
        struct.pack_into('<BBHiQQIIQHHiQQ', entries, index * 64, 23, 0, 0, fd, 2**64 - 1, ctypes.addressof(buffer), len(data), 0, 0, 0, 0, 0, 0, 0)
        struct.pack_into('<I', rings, at[6] + 4 * index, index)
        struct.pack_into('<I', rings, at[1], tail + 1)
        system('io_uring_enter', ring, 1, 1, 1, None, 0)
        head = struct.unpack_from('<I', completions, cq[0])[0]
        mask = struct.unpack_from('<I', completions, cq[2])[0]
        result = struct.unpack_from('<Qi', completions, cq[5] + 16 * (head & mask))[1]
        struct.pack_into('<I', completions, cq[0], head + 1)
        return result

    return append


def by_stdio(path):
    file = open(path, 'ab', buffering=4096)

    def append(data):
        file.write(data)
        file.flush()
        return len(data)

    return append


def by_splice(path):
    """splice(2) refuses O_APPEND, so what it writes is put where SEEK_END says."""
    fd = opened(path, 0)

    def append(data):
        reader, writer = os.pipe()
        os.write(writer, data)
        os.lseek(fd, 0, os.SEEK_END)
        moved = os.splice(reader, fd, len(data))
        os.close(reader)
        os.close(writer)
        return moved

    return append


def by_fallocate(path):
    """Makes room behind what fstat says is the end, and fills it."""
    fd = opened(path, 0)

    def append(data):
        end = os.fstat(fd).st_size
        os.posix_fallocate(fd, end, len(data))
        return os.pwrite(fd, data, end)

    return append


def by_truncate(path):
    fd = opened(path, 0)

    def append(data):
        end = os.lseek(fd, 0, os.SEEK_END)
        os.ftruncate(fd, end + len(data))
        with mmap.mmap(fd, end + len(data)) as memory:
            memory[end : end + len(data)] = data
        return len(data)

    return append


def stalled(path, data):
    """An append that stops while it copies its data, with the inode's lock; the function returned lets it go on, and says what was written."""
    import fcntl
    import threading

    fd = opened(path)
    fault = libc.syscall(ctypes.c_long(323), ctypes.c_long(os.O_CLOEXEC))  # userfaultfd
    if fault < 0:
        raise OSError(ctypes.get_errno(), 'userfaultfd')
    api = bytearray(struct.pack('<QQQ', 0xAA, 0, 0))
    fcntl.ioctl(fault, 0xC018AA3F, api)  # UFFDIO_API
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(fault, 0xC020AA00, bytearray(struct.pack('<QQQQ', at, 4096, 1, 0)))  # UFFDIO_REGISTER, missing pages
    written = []

    def write():
        written.append(libc.write(fd, ctypes.c_void_p(at), ctypes.c_size_t(len(data))))

    thread = threading.Thread(target=write)
    thread.start()
    os.read(fault, 32)  # the fault: now it waits

    def release():
        page = ctypes.create_string_buffer(data, 4096)
        fcntl.ioctl(fault, 0xC028AA03, bytearray(struct.pack('<QQQQq', at, ctypes.addressof(page), 4096, 0, 0)))  # UFFDIO_COPY
        thread.join()
        memory.close()
        return written[0]

    return release


WRITERS = {name[3:]: function for name, function in list(globals().items()) if name.startswith('by_')}


def reader(path):
    """Looks at a file in every way that goes by its size; everything is opened now."""
    fd = os.open(path, os.O_RDONLY)
    out = os.open(path + '.out', os.O_RDWR | os.O_CREAT, 0o644)
    memory = mmap.mmap(fd, 1 << 20, prot=mmap.PROT_READ) if os.fstat(fd).st_size >= 1 << 20 else None

    def copied(copy):
        os.ftruncate(out, 0)
        os.lseek(out, 0, os.SEEK_SET)
        os.lseek(fd, 0, os.SEEK_SET)
        while copy() > 0:
            pass
        return os.fstat(out).st_size

    def spliced():
        from_pipe, to_pipe = os.pipe()
        moved = os.splice(fd, to_pipe, 65536)
        os.close(to_pipe)
        while os.splice(from_pipe, out, 65536) > 0:
            pass
        os.close(from_pipe)
        return moved

    def look():
        seen = {
            'SEEK_END': os.lseek(fd, 0, os.SEEK_END),
            'copy_file_range': copied(lambda: os.copy_file_range(fd, out, 1 << 20)),
            'sendfile': copied(lambda: os.sendfile(out, fd, None, 1 << 20)),
            'splice': copied(spliced),
            'fstat': os.fstat(fd).st_size,
            'SEEK_HOLE': os.lseek(fd, 0, os.SEEK_HOLE),
            'pread': len(os.pread(fd, 8 << 20, 0)),
        }
        wrong = {name: size for name, size in seen.items() if size != seen['fstat']}
        return [seen['fstat'], wrong]

    del memory
    return look
