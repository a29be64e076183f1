"""What the servers of processes share: they import once, then fork one process for every request.

A request is a line of JSON on stdin with "cwd", where the process writes output.txt.
The answers are lines of JSON on stdout: {"pid": ...} at once, {"code": ...} when the process has ended.
"""

import faulthandler
import json
import os
import signal
import sys


def serve(child):
    """Answer all requests. `child` is called with each of them, in a process of its own that it has to end."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            request = json.loads(line)
            begin(request["cwd"])
            child(request)
        answer(pid=pid)
        answer(code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def begin(folder):
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()


def default_signals():
    """Take signals as a process that a shell has started does."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def answer(**values):
    print(json.dumps(values), flush=True)
