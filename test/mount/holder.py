"""Programs that use a mount while its daemon ends. usage: holder.py hold DIR | write DIR"""
import mmap
import os
import sys
import time


def hold(directory):
    """A working directory, an open file and a dirty mapping inside, until killed."""
    os.chdir(directory)
    with open("mapped", "wb+") as file:
        file.truncate(8192)
        mapping = mmap.mmap(file.fileno(), 8192)
        mapping[4096:4101] = b"dirty"
        print("ready", flush=True)
        time.sleep(600)


def write(directory):
    """One file after the other, each named once it is acknowledged, until the mount is gone."""
    number = 0
    while True:
        try:
            with open(f"{directory}/{number}", "w") as file:
                file.write(f"content {number}")
        except OSError:
            return
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    {"hold": hold, "write": write}[sys.argv[1]](sys.argv[2])
