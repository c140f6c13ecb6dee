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
import socket
import stat
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)


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
