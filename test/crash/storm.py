"""Works in a directory until SIGTERM, checks all that it gets back, and prints how many rounds it made.

argv: kind, directory (made here, but for `hold`), seed. Any call that fails ends it with status 1.
"""
import ctypes
import fcntl
import mmap
import os
import random
import signal
import sqlite3
import subprocess
import sys

# Nobody else would end it if the test were killed.
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
kind, directory, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(seed)
ended = False


def end(*_):
    global ended
    ended = True


signal.signal(signal.SIGTERM, end)


def rounds(work):
    os.mkdir(directory)
    count = 0
    while not ended:
        work(count)
        count += 1
    print('%d rounds' % count, flush=True)


def renames():
    """Two files that always hold the same pair of letters change places in every way there is."""
    at = lambda name: os.path.join(directory, name)

    def work(count):
        a, b, c = at('a%d' % count), at('b%d' % count), at('c')
        os.close(os.open(a, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        with open(a, 'r+') as file:
            file.write('content %d' % count)
        os.link(a, b)
        os.rename(a, c)
        assert not os.path.exists(a)
        os.mkdir(a)
        os.rename(a, at('d'))
        os.symlink('c', a)
        assert os.readlink(a) == 'c'
        os.setxattr(b, 'user.count', str(count).encode(), os.XATTR_CREATE)
        assert os.getxattr(c, 'user.count') == str(count).encode()
        os.removexattr(c, 'user.count')
        os.unlink(a)
        os.unlink(b)
        assert os.stat(c).st_nlink == 1
        with open(c) as file:
            assert file.read() == 'content %d' % count
        os.rmdir(at('d'))
        assert sorted(os.listdir(directory)) == ['c'], os.listdir(directory)

    rounds(work)


def sqlite():
    def work(count):
        db = sqlite3.connect(os.path.join(directory, 'db%d' % (count % 3)), isolation_level=None, timeout=60)
        db.execute('PRAGMA journal_mode=%s' % ('wal' if count % 3 == 0 else 'delete'))
        db.execute('CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body TEXT)')
        db.execute('INSERT INTO rows VALUES (NULL, ?)', ('x' * random.randrange(5000),))
        assert db.execute('SELECT count(*), max(id) FROM rows').fetchone() == (count // 3 + 1, count // 3 + 1)
        if count % 20 == 0:
            assert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)
        db.close()

    rounds(work)


def mapped():
    """Random reads and writes, through calls and through a mapping, against a copy in memory; like fsx."""
    size = 300000
    model = bytearray(size)
    state = {}

    def work(count):
        if count == 0:
            state['fd'] = os.open(os.path.join(directory, 'file'), os.O_CREAT | os.O_RDWR, 0o600)
            os.ftruncate(state['fd'], size)
            state['map'] = mmap.mmap(state['fd'], size)
        at = random.randrange(size)
        length = min(random.randrange(1, 20000), size - at)
        data = random.randbytes(length)
        dice = random.randrange(5)
        if dice == 0:
            assert os.pwrite(state['fd'], data, at) == length
            model[at:at + length] = data
        elif dice == 1:
            state['map'][at:at + length] = data
            model[at:at + length] = data
            if random.random() < 0.3:
                state['map'].flush()
        elif dice == 2:
            os.ftruncate(state['fd'], at)
            os.ftruncate(state['fd'], size)
            model[at:] = bytes(size - at)
        elif dice == 3:
            assert os.pread(state['fd'], length, at) == model[at:at + length]
        else:
            assert state['map'][at:at + length] == model[at:at + length]

    rounds(work)


def git():
    run = lambda *words: subprocess.run(['git', '-C', directory, *words], check=True, capture_output=True, text=True).stdout

    def work(count):
        if count == 0:
            run('init', '-q')
            run('config', 'user.email', 'a@example.com')
            run('config', 'user.name', 'a')
        for i in range(5):
            with open(os.path.join(directory, 'f%d' % random.randrange(20)), 'a') as file:
                file.write('%d %d\n' % (count, i))
        run('add', '-A')
        run('commit', '-qm', str(count))
        assert run('rev-list', '--count', 'HEAD').strip() == str(count + 1)
        if count % 10 == 9:
            run('fsck', '--strict')
            run('gc', '-q')

    rounds(work)


def hold():
    """Keeps everything that a process can keep, and looks after it at each SIGUSR1."""
    at = lambda name: os.path.join(directory, name)
    with open(at('named'), 'wb') as file:
        file.write(b'x' * 100000)
    named = os.open(at('named'), os.O_RDWR)
    unlinked = os.open(at('unlinked'), os.O_CREAT | os.O_RDWR)
    os.write(unlinked, b'without a name')
    os.unlink(at('unlinked'))
    temporary = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(temporary, b'never had one')
    fcntl.lockf(named, fcntl.LOCK_EX)
    view = mmap.mmap(named, 100000)
    os.mkdir(at('here'))
    os.chdir(at('here'))
    appended = os.open(at('appended'), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    listing = os.scandir(directory)
    checks = 0

    def check(*_):
        nonlocal checks
        view[checks:checks + 4] = b'over'
        assert os.pread(named, 4, checks) == b'over'
        assert os.pread(unlinked, 100, 0) == b'without a name'
        assert os.pread(temporary, 100, 0) == b'never had one'
        os.pwrite(unlinked, b'W', 0)
        os.pwrite(unlinked, b'w', 0)
        assert os.fstat(unlinked).st_nlink == 0
        assert os.getcwd() == at('here')
        with open('relative', 'w') as file:
            file.write('here')
        os.unlink('relative')
        os.write(appended, b'line\n')
        other = 'import fcntl, os, sys; fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)'
        result = subprocess.run([sys.executable, '-c', other, at('named')], capture_output=True, text=True, cwd='/')
        assert result.returncode == 1 and 'BlockingIOError' in result.stderr, result.stderr
        print('checked %d' % checks, flush=True)
        checks += 1

    signal.signal(signal.SIGUSR1, check)
    print('held', flush=True)
    while not ended:
        signal.pause()
    assert {entry.name for entry in listing} == {'named', 'here', 'appended'}
    os.chdir('/')
    os.rmdir(at('here'))
    assert os.path.getsize(at('appended')) == 5 * checks


{'renames': renames, 'sqlite': sqlite, 'mapped': mapped, 'git': git, 'hold': hold}[kind]()
