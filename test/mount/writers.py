"""Writes numbered records to several files in turn, so that a snapshot can be checked for its instant.

argv: directory, number of files. In every round n: appends the record n to file 0, 1, …, then renames
pair-<n-1> to pair-<n>. What was written before something in the snapshot must be in the snapshot too.
"""
import os
import sys

directory, count = sys.argv[1], int(sys.argv[2])
os.makedirs(directory, exist_ok=True)
files = [os.open('%s/log-%d' % (directory, i), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644) for i in range(count)]
open('%s/pair-0' % directory, 'w').close()
print('ready', flush=True)
n = 0
while True:
    n += 1
    for fd in files:
        os.write(fd, b'%09d\n' % n)
    os.rename('%s/pair-%d' % (directory, n - 1), '%s/pair-%d' % (directory, n))
