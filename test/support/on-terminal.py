"""Runs a program on a pseudo-terminal: python3 on-terminal.py COLUMNS ROWS PROGRAM ARGUMENTS...

What comes on standard input is typed, and what the program writes comes out on standard output. Ends as the program does;
one that was ended by a signal is 128 and its number, as shells have it.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios

columns, rows = int(sys.argv[1]), int(sys.argv[2])
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    os.execvp(sys.argv[3], sys.argv[3:])
watched = [terminal, 0]
while True:
    ready, _, _ = select.select(watched, [], [])
    if 0 in ready:
        typed = os.read(0, 65536)
        if typed:
            while typed:
                typed = typed[os.write(terminal, typed) :]
        else:
            watched.remove(0)
    if terminal in ready:
        try:
            written = os.read(terminal, 65536)
        except OSError:  # the program has ended
            written = b""
        if not written:
            break
        while written:
            written = written[os.write(1, written) :]
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
