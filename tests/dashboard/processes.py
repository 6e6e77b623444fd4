"""Background processes that always end with the scenario."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

# Reads started and ended process IDs from standard input. On EOF, kills the remaining processes.
GUARD = """
declare -A running
while read -r sign pid; do
    case $sign in
    +) running[$pid]=1 ;;
    -) unset "running[$pid]" ;;
    esac
done
for pid in "${!running[@]}"; do kill -KILL "$pid"; done
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, test, within=60.0, alive=lambda: None):
    """Polls until `test` returns a true value, and returns it. `alive` raises if waiting is pointless."""
    limit = time.monotonic() + within
    while True:
        if found := test():
            return found
        alive()
        if time.monotonic() > limit:
            raise SystemExit(f"dashboard: timed out after {within:.0f} s: {what}")
        time.sleep(0.2)


class Processes:
    """Context manager that ends its processes in reverse order of their start."""

    def __init__(self, logs: pathlib.Path):
        self.logs = logs
        self.running = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))
        # A separate session, so that Ctrl-C does not end it first.
        self.guard = subprocess.Popen(
            ["bash", "-c", GUARD], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, text=True,
        )
        return self

    def __exit__(self, kind, _error, _trace):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for name in reversed(list(self.running)):
            self.end(name)
        self.guard.stdin.close()
        self.guard.wait()
        if kind is not None and kind is not KeyboardInterrupt:
            for log in sorted(self.logs.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-15:]
                if lines:
                    print(f"\n-- last lines of {log.name}", *lines, sep="\n", file=sys.stderr)

    def start(self, name, command, environment=None):
        """Starts a background process whose standard input is a pipe that only this process holds open."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | (environment or {}),
            )
        self.running[name] = process
        self.notify_guard("+", process)
        return process

    def notify_guard(self, sign, process):
        self.guard.stdin.write(f"{sign} {process.pid}\n")
        self.guard.stdin.flush()

    def end(self, name, number=signal.SIGTERM):
        process = self.running.pop(name)
        process.stdin.close()
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.notify_guard("-", process)

    def all_alive(self):
        for name, process in self.running.items():
            if (code := process.poll()) is not None:
                raise SystemExit(f"dashboard: {name} exited with code {code}")
