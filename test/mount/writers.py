"""Writes numbered records to several files in turn, so that a snapshot can be checked for its instant.

argv: directory, number of files, and a size to stream besides. In every round n: appends the record n to file 0, 1, …,
then renames pair-<n-1> to pair-<n>, if it is there. What was written before something in the snapshot must be in the
snapshot too.
"""
import ctypes
import os
import signal
import sys

directory, count, stream = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# Nobody else would end it if the test were killed.
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.makedirs(directory, exist_ok=True)
files = [os.open('%s/log-%d' % (directory, i), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644) for i in range(count)]
open('%s/pair-0' % directory, 'w').close()
bulk = os.open('%s/bulk' % directory, os.O_CREAT | os.O_WRONLY, 0o644)
print('ready', flush=True)
n = 0
while True:
    n += 1
    for fd in files:
        os.write(fd, b'%09d\n' % n)
    try:
        os.rename('%s/pair-%d' % (directory, n - 1), '%s/pair-%d' % (directory, n))
    except FileNotFoundError:
        pass
    if stream > 0:
        os.pwrite(bulk, os.urandom(4096) * (stream // 4096), n % 64 * stream)
