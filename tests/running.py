"""A game started as its users start it: the command ``pummelo run`` in a process of its own, over real sockets."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ROOT", "DidNotStart", "RunningGame"]

ROOT = Path(__file__).resolve().parent.parent
READY = 60.0
"""Seconds for a game to be ready, Ray's own start included."""
STOP = 30.0
"""Seconds for a game to end after a signal."""
GONE = 15.0
"""Seconds for the last of its processes to be gone after that."""
MARK = "PUMMELO_TEST_GAME"
"""The environment variable that tells a game's processes from all others, however they were started."""


class DidNotStart(Exception):
    """The command ended, or took too long, before the game was ready."""

    def __init__(self, what: str, code: int | None, stdout: Sequence[str], stderr: str) -> None:
        super().__init__("\n".join([what, "stdout:", *stdout, "stderr:", stderr]))
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


class RunningGame:
    """``pummelo run FILE`` for as long as the context; on entering, the game is ready.

    Ray's files and what the game wrote on standard error are in a folder that ends with the context. Every process of
    the game is gone after it: those that should have ended by themselves and did not are killed then, so a test that
    cares asks ``leftovers()`` first.

    Args:
        file: The game's servers.yaml.
        sets: What follows ``--set``, as ``connector.port=0``.
        args: Further arguments.
        env: Environment variables besides this process's own.
        name: The game's name on its cluster; one of its own by default.
        ready: Seconds to wait for the line ``ready``; 0 does not wait.
    """

    def __init__(
        self,
        file: Path,
        *,
        sets: Sequence[str] = (),
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        ready: float = READY,
    ) -> None:
        self.name = name or f"test-{uuid.uuid4().hex[:12]}"
        self.urls: dict[str, str] = {}
        self.stdout: list[str] = []
        self._mark = uuid.uuid4().hex
        self._ready = ready
        changes = [part for change in sets for part in ("--set", change)]
        pummelo = Path(sys.executable).with_name("pummelo")
        self._command = [str(pummelo), "run", str(file), "--name", self.name, *changes, *args]
        self._env = dict(env or {})
        self._heard = threading.Condition()
        self._at_end = False

    def __enter__(self) -> Self:
        # Short, for Ray's sockets are in it and their paths may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pm-"))
        self.stderr_path = self.folder / "stderr.txt"
        environment = os.environ | {"RAY_TMPDIR": str(self.folder)} | self._env | {MARK: self._mark}
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.folder,  # Ray's workers would import the packages from the sources if they were there
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        self._reader = threading.Thread(target=self._read, name="game's stdout", daemon=True)
        self._reader.start()
        try:
            if self._ready:
                self.wait_ready(self._ready)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether all servers are up."""
        return "ready" in self.stdout

    def stderr(self) -> str:
        """Return what is on standard error so far: the command's own, and the servers' logs by Ray."""
        return self.stderr_path.read_text(encoding="utf-8", errors="replace")

    def port(self, server_id: str) -> int:
        """Return the port of a frontend."""
        return int(self.urls[server_id].rstrip("/").rpartition(":")[2])

    def wait_ready(self, timeout: float = READY) -> None:
        """Wait for the line ``ready``. Raises DidNotStart."""
        until = time.monotonic() + timeout
        while not self.ready:
            # What it has written is read after it was seen to have ended: the pipe may be others' still.
            code = self.process.poll()
            with self._heard:
                self._heard.wait_for(lambda: self.ready or self._at_end, 0.5)
            if self.ready:
                return
            if code is not None:
                raise self._did_not_start(f"ended with {code} before it was ready", code)
            if time.monotonic() > until:
                raise self._did_not_start(f"not ready within {timeout:g} s", None)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Send a signal to the command alone, not to the servers' processes."""
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP) -> int:
        """Wait for the command's end; returns its exit status. Raises TimeoutError."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the game still runs after {timeout:g} s\nstderr:\n{self.stderr()}") from None
        self._reader.join(GONE)
        return code

    def stop(self, number: int = signal.SIGINT, *, timeout: float = STOP) -> int:
        """Interrupt, and wait for the end; returns the exit status. Raises TimeoutError."""
        if self.process.poll() is None:
            self.interrupt(number)
        return self.wait(timeout)

    def processes(self) -> dict[int, str]:
        """Return the command line of each process of the game, by its id."""
        sign = f"{MARK}={self._mark}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                marked = sign in (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # ended meanwhile, or somebody else's
                continue
            if marked and line:  # a zombie has none
                found[int(entry.name)] = line
        return found

    def leftovers(self, timeout: float = GONE) -> dict[int, str]:
        """Wait until the game has no process any more; returns those it still has then."""
        until = time.monotonic() + timeout
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def close(self) -> None:
        """End all there is of the game, at once if it does not end by itself, and remove its folder."""
        try:
            self.stop()
        except TimeoutError:
            self.process.kill()
            self.process.wait()
        finally:
            for pid in self.leftovers():
                _kill(pid)
            self._reader.join(GONE)
            if self.process.stdout is not None:
                self.process.stdout.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self._hear(line.rstrip("\n"))
                self._heard.notify_all()
        with self._heard:
            self._at_end = True
            self._heard.notify_all()

    def _hear(self, line: str) -> None:
        self.stdout.append(line)
        match line.split():
            case ["serving", server_id, url]:
                self.urls[server_id] = url

    def _did_not_start(self, what: str, code: int | None) -> DidNotStart:
        return DidNotStart(f"{' '.join(self._command)}: {what}", code, self.stdout, self.stderr())


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
