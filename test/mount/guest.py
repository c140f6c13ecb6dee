"""A process that lives in the mount: it keeps files, mappings and directories open between commands.

stdin: one JSON string a line, Python to evaluate, or to run when it is no expression; stdout: for each
a line of JSON, {"value": ...} (bytes as latin1) or {"error": the errno's name, or what Python says}.
Names that one command sets are there in the next.
"""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import stat
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
IN = {'MODIFY': 0x2, 'ATTRIB': 0x4, 'CREATE': 0x100, 'DELETE': 0x200, 'DELETE_SELF': 0x400}


class Watch:
    """inotify on some paths."""

    def __init__(self, *paths):
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        self.paths = {}
        for path in paths:
            number = libc.inotify_add_watch(self.fd, os.fsencode(path), sum(IN.values()))
            if number < 0:
                raise OSError(ctypes.get_errno(), path)
            self.paths[number] = path

    def events(self, wait=1.0):
        """What was heard until nothing came for a moment: [path, event, name]."""
        heard = []
        while select.select([self.fd], [], [], wait)[0]:
            data = os.read(self.fd, 65536)
            at = 0
            while at < len(data):
                number, mask, _, length = struct.unpack_from('iIII', data, at)
                name = data[at + 16:at + 16 + length].rstrip(b'\0').decode('latin1')
                heard += [[self.paths.get(number, ''), word, name] for word, bit in IN.items() if mask & bit]
                at += 16 + length
            wait = 0.1
        return heard


def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return value.decode('latin1')
    if isinstance(value, (list, tuple)) and not isinstance(value, os.stat_result):
        return [plain(one) for one in value]
    return value if isinstance(value, (int, float, str, bool, dict, type(None))) else repr(value)


def run(code, names):
    try:
        compiled = compile(code, 'guest', 'eval')
    except SyntaxError:
        exec(compile(code, 'guest', 'exec'), names)
        return None
    return plain(eval(compiled, names))


for line in sys.stdin:
    try:
        answer = {'value': run(json.loads(line), globals())}
    except OSError as failure:
        answer = {'error': errno.errorcode.get(failure.errno, str(failure))}
    except Exception as failure:
        answer = {'error': repr(failure)}
    print(json.dumps(answer), flush=True)
