"""Starts servers of ours and finds Chromium: what the browser tests and the load script share."""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_S = 90


def find_chromium() -> str | None:
    """Return the path of Chromium, the one that CHROMIUM names first; None if there is none."""
    named = [os.environ.get("CHROMIUM"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))]
    return next((path for path in named if path and Path(path).is_file()), None)


def is_local(url: str) -> bool:
    """Tell whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "about") or parts.hostname in ("127.0.0.1", "localhost", "::1")


@dataclass
class Server:
    """A server of ours in a process of its own."""

    process: subprocess.Popen
    url: str
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def start_process(command: list[str], mark: str, log_file: Path | None = None, environment=None) -> Server:
    """Start a server and wait until it prints a line with ``mark`` and its address."""
    log_file = log_file or Path(tempfile.mkdtemp(prefix="workbench-server-")) / "log"
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1", **(environment or {})}
    with log_file.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    server = Server(process, "", log_file)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        announced = [line for line in server.log.splitlines() if mark in line and "http://" in line]
        if announced:
            server.url = "http://" + announced[0].split("http://", 1)[1].strip()
            return server
        time.sleep(0.1)
    server.stop()
    raise RuntimeError(f"{' '.join(command)} did not start:\n{server.log}")
