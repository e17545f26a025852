"""Runs a PostgreSQL server in a folder and ends with whoever started it: a program, see ``tests/servers.py``.

It takes ``start``, ``stop fast`` and ``stop immediate``, a line each, and answers with a line: nothing, or what went
wrong. At the end of its input, or once its parent is gone, it kills the server and removes the folder.
"""

from __future__ import annotations

import os
import pwd
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

#: How long the server may take to start, stop or be made.
PATIENCE = 60.0
#: Below the ports that outgoing connections take, so that the server gets its own again.
PORTS = range(20_000, 32_000)

#: What is made in a minute and thrown away need not survive the loss of power.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "log",
    "timezone": "UTC",
}


class Server:
    """One server in one folder.

    Parameters
    ----------
    programs : Path
        Where initdb and postgres are.
    folder : Path
        Where it lives; removed at the end.
    password : str
        The superuser's.
    settings : list of str
        ``name=value``, beyond ours.
    """

    def __init__(self, programs: Path, folder: Path, password: str, settings: list[str]):
        self.folder = folder
        self.data = folder / "data"
        self.settings = [f"{name}={value}" for name, value in SETTINGS.items()] + settings
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        #: PostgreSQL refuses to run as root.
        self.account = _account()
        if self.account:
            os.chown(folder, self.account["user"], self.account["group"])
        self.programs = self._reachable(programs)
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        options = [
            "--username=postgres",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
        ]
        self._run("initdb", "-D", self.data, f"--pwfile={secret}", "--no-sync", "--no-locale", *options)
        secret.unlink()

    def _reachable(self, programs: Path) -> Path:
        """Give where the account finds the programs: where they are, or in a copy."""
        try:
            subprocess.run(
                [programs / "postgres", "--version"], check=True, capture_output=True, **self.account
            )
        except PermissionError:
            copy = self.folder / "install"
            shutil.copytree(programs.parent, copy, symlinks=True)
            return copy / programs.name
        return programs

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self.programs / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=self.folder,
            check=False,
            **self.account,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")

    def start(self) -> None:
        """Start it, where it was if it was started before."""
        if self._process is not None and self._process.poll() is None:
            return
        for _ in range(20):
            port = self.port or random.choice(PORTS)
            if self._come_up(port):
                self.port = port
                return
        raise RuntimeError(f"postgres does not start: {self._log()[-2000:]}")

    def _come_up(self, port: int) -> bool:
        options = [f"port={port}", f"unix_socket_directories={self.folder}", *self.settings]
        settings = [part for option in options for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.account,
            )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            if self._says() == "ready":
                return True
            time.sleep(0.01)
        self.stop(signal.SIGQUIT)
        return False

    def _says(self) -> str:
        """Give what its own file says of how far it is; pg_ctl looks there, too."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return ""
        mine = self._process is not None and lines[:1] == [str(self._process.pid)]
        return lines[7].strip() if mine and len(lines) > 7 else ""

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self, how: signal.Signals) -> None:
        """Stop it, and wait until it has."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _account() -> dict:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def obey(server: Server, command: str) -> str:
    """Do what a line asks for; give the answer."""
    try:
        if command == "start":
            server.start()
            return f"port {server.port}"
        server.stop(signal.SIGQUIT if command == "stop immediate" else signal.SIGINT)
    except Exception as error:
        return f"error {' '.join(str(error).split())}"
    return "stopped"


def main() -> None:
    """Serve until there is nobody to serve."""
    programs, folder, password, *settings = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    try:
        server = Server(Path(programs), Path(folder), password, settings)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"error {' '.join(str(error).split())}", flush=True)
        return
    try:
        # Another child of the parent may hold the other end of our input open, so its life counts as well.
        while os.getppid() == parent:
            if select.select([sys.stdin], [], [], 1.0)[0]:
                line = sys.stdin.readline()
                if not line:
                    break
                print(obey(server, line.strip()), flush=True)
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
