"""Files between processes: locks, shared memory, appends. Prints what was seen, story by story."""
import errno
import fcntl
import json
import mmap
import os
import signal
import struct
import sys
import time

PAGE = 4096
WRITERS = 4
LINES = 500


def other_process(work):
    """What `work` returns in a process of its own, or the name of its errno, or the signal that ended it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = work()
        except OSError as error:
            answer = errno.errorcode[error.errno]
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, 'rb') as answers:
        data = answers.read()
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else json.loads(data)


def start(work):
    """A process that does something and then stays; returns its pid once it is done."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(writer, b'x')
        signal.pause()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return pid


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def opened():
    return os.open('file', os.O_RDWR)


def try_flock(kind):
    fcntl.flock(opened(), kind | fcntl.LOCK_NB)
    return 'locked'


def try_lockf(kind, length, begin):
    fcntl.lockf(opened(), kind | fcntl.LOCK_NB, length, begin)
    return 'locked'


def lock_holder(begin, length):
    request = struct.pack('hhqqi', fcntl.F_WRLCK, os.SEEK_SET, begin, length, 0)
    answer = struct.unpack('hhqqi', fcntl.fcntl(opened(), fcntl.F_GETLK, request))
    return 'nobody' if answer[0] == fcntl.F_UNLCK else list(answer[2:])


def flock_story():
    fd = opened()
    fcntl.flock(fd, fcntl.LOCK_SH)
    seen = {'shared beside shared': other_process(lambda: try_flock(fcntl.LOCK_SH))}
    seen['exclusive beside shared'] = other_process(lambda: try_flock(fcntl.LOCK_EX))
    fcntl.flock(fd, fcntl.LOCK_EX)
    seen['shared beside exclusive'] = other_process(lambda: try_flock(fcntl.LOCK_SH))
    fcntl.flock(fd, fcntl.LOCK_UN)
    seen['after unlock'] = other_process(lambda: try_flock(fcntl.LOCK_EX))
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)
    seen['after close'] = other_process(lambda: try_flock(fcntl.LOCK_EX))
    return seen


def lockf_story():
    fd = opened()
    fcntl.lockf(fd, fcntl.LOCK_EX, 100, 0)
    me = os.getpid()
    seen = {'overlapping': other_process(lambda: try_lockf(fcntl.LOCK_EX, 10, 95))}
    seen['beside it'] = other_process(lambda: try_lockf(fcntl.LOCK_EX, 10, 100))
    holder = other_process(lambda: lock_holder(50, 1))
    seen['holder'] = [*holder[:2], 'me' if holder[2] == me else holder[2]]
    fcntl.lockf(fd, fcntl.LOCK_SH, 100, 0)
    seen['shared'] = other_process(lambda: try_lockf(fcntl.LOCK_SH, 100, 0))
    os.close(opened())
    seen['after a close of any descriptor'] = other_process(lambda: lock_holder(0, 100))
    os.close(fd)
    return seen


def death_story():
    seen = {}
    for name, lock, probe in (
        ('flock', lambda: try_flock(fcntl.LOCK_EX), lambda: try_flock(fcntl.LOCK_EX)),
        ('lockf', lambda: try_lockf(fcntl.LOCK_EX, 0, 0), lambda: try_lockf(fcntl.LOCK_EX, 0, 0)),
    ):
        pid = start(lock)
        alive = other_process(probe)
        end(pid)
        seen[name] = [alive, other_process(probe)]
    return seen


def waiting_story():
    """A lock that is waited for: granted when it is free, left when a signal comes."""
    fd = opened()
    fcntl.lockf(fd, fcntl.LOCK_EX)
    reader, writer = os.pipe()

    def interrupted():
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, 'alarm')))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        fcntl.lockf(opened(), fcntl.LOCK_EX)

    def patient():
        fcntl.lockf(opened(), fcntl.LOCK_EX)
        os.write(writer, b'x')

    seen = {'a signal': other_process(interrupted)}
    pid = os.fork()
    if pid == 0:
        patient()
        os._exit(0)
    time.sleep(0.05)
    os.set_blocking(reader, False)
    try:
        seen['before'] = os.read(reader, 1).decode()
    except BlockingIOError:
        seen['before'] = 'waits'
    fcntl.lockf(fd, fcntl.LOCK_UN)
    os.waitpid(pid, 0)
    seen['after'] = 'has it' if os.read(reader, 1) == b'x' else 'waits'
    return seen


def mmap_story():
    os.truncate('file', 4 * PAGE)
    fd = opened()
    shared = mmap.mmap(fd, 4 * PAGE)

    def write_mapped():
        memory = mmap.mmap(opened(), 4 * PAGE)
        memory[PAGE:PAGE + 6] = b'mapped'

    def write_called():
        os.pwrite(opened(), b'called', 2 * PAGE)

    other_process(write_mapped)
    seen = {'map to map': shared[PAGE:PAGE + 6].decode()}
    seen['map to read'] = os.pread(fd, 6, PAGE).decode()
    other_process(write_called)
    seen['write to map'] = shared[2 * PAGE:2 * PAGE + 6].decode()
    private = mmap.mmap(fd, 4 * PAGE, flags=mmap.MAP_PRIVATE)
    private[0:7] = b'private'
    seen['private to read'] = os.pread(fd, 7, 0).decode('latin1')
    shared[3 * PAGE:3 * PAGE + 4] = b'last'
    shared.flush()
    seen['after msync'] = other_process(lambda: os.pread(opened(), 4, 3 * PAGE).decode())
    # Through the mapping nothing can be written behind the end of the file.
    os.ftruncate(fd, PAGE + 3)
    seen['truncated'] = shared[PAGE:PAGE + 6].decode('latin1')
    seen['behind the end'] = other_process(lambda: shared[3 * PAGE])
    shared[PAGE + 3:PAGE + 6] = b'???'
    shared.flush(0, 2 * PAGE)
    os.ftruncate(fd, 2 * PAGE)
    seen['grown again'] = os.pread(fd, 6, PAGE).decode('latin1')
    return seen


def unmapped_story():
    """Pages that were dirtied through a mapping reach the file when the mapping and the descriptor are gone."""
    os.truncate('file', 64 * PAGE)

    def work():
        fd = opened()
        memory = mmap.mmap(fd, 64 * PAGE)
        os.close(fd)
        for page in range(64):
            memory[page * PAGE:page * PAGE + 8] = b'page %03d' % page
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        work()
    os.waitpid(pid, 0)
    fd = opened()
    return sum(os.pread(fd, 8, page * PAGE) == b'page %03d' % page for page in range(64))


def append_story():
    def writer(number):
        fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for line in range(LINES):
            os.write(fd, b'%d %05d\n' % (number, line))

    pids = []
    for number in range(WRITERS):
        pids.append(os.fork())
        if pids[-1] == 0:
            writer(number)
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)
    with open('log') as file:
        lines = file.read().splitlines()
    expected = {'%d %05d' % (number, line) for number in range(WRITERS) for line in range(LINES)}
    return {'lines': len(lines), 'all there': set(lines) == expected}


def names_story():
    """Of many who make the same name at once one succeeds."""
    won = 0
    for round_ in range(50):
        reader, writer = os.pipe()
        pids = []
        for _ in range(WRITERS):
            pids.append(os.fork())
            if pids[-1] == 0:
                os.close(writer)
                os.read(reader, 1)
                try:
                    os.close(os.open('once-%d' % round_, os.O_CREAT | os.O_EXCL))
                    os._exit(0)
                except FileExistsError:
                    os._exit(1)
        os.close(writer)
        os.close(reader)
        won += sum(os.waitpid(pid, 0)[1] == 0 for pid in pids)
    return won


if __name__ == '__main__':
    os.chdir(sys.argv[1])
    os.close(os.open('file', os.O_CREAT | os.O_RDWR))
    stories = (flock_story, lockf_story, death_story, waiting_story, mmap_story, unmapped_story, append_story, names_story)
    print(json.dumps({story.__name__: story() for story in stories}))
