"""A real S3 server: a private Ceph radosgw with one mon and one osd.

    tools/s3_server.py --run make test-s3     runs a command with LAKEHOUSE_TEST_S3_* set
    tools/s3_server.py                        runs until interrupted, prints the variables
    tools/s3_server.py --data DIR --listen 0.0.0.0:8000
                                              keeps its objects in DIR, as docker-compose.yml has it

Without --data everything lives in memory and a temporary folder on loopback, and ends with this
process, also on SIGTERM. With it the keys are those in S3_ACCESS_KEY and S3_SECRET_KEY when DIR is
first used. Needs the Debian packages radosgw, ceph-mon and ceph-osd (or an image of Ceph); nothing
else of a Ceph cluster. Python 3.9 runs it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from types import FrameType

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
INSTALL = "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd"
START_SECONDS = 120.0
REFUSED_SECONDS = 20.0

CONFIG = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr1 = true
ms bind msgr2 = false
ms bind ipv4 = true
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
mon pg warn min per osd = 0
mon data avail crit = 1
run dir = {root}
admin socket = {root}/$name.asok
log file = {root}/$name.log
pid file =
[mon.a]
mon data = {root}/mon
[osd.0]
osd data = {root}/osd
osd objectstore = {objectstore}
memstore device bytes = {size_bytes}
bluestore block create = true
bluestore block size = {size_bytes}
osd memory target = 1073741824
[client.rgw]
rgw frontends = beast endpoint={host}:{port} tcp_nodelay=1
rgw enable usage log = false
rgw gc obj min wait = 1
rgw thread pool size = 64
"""


class Failed(Exception):
    """Said to the user in one line."""


class Server:
    """The processes of one cluster below ``root``; ``kept`` clusters outlive them.

    A kept cluster writes through to its disk: what was acknowledged survives a kill.
    """

    def __init__(self, root: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.root = root
        self.host = host
        self.port = port or free_port()
        self.access_key = "lakehouse-test"
        self.secret_key = secrets.token_hex(20)
        self._config = root / "ceph.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def keys_from_environment(self) -> None:
        """Take the keys that the operator chose; there is no default for a server that stays."""
        found = [os.environ.get(name, "") for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY")]
        if not all(found):
            raise Failed("set S3_ACCESS_KEY and S3_SECRET_KEY: this server keeps its objects")
        self.access_key, self.secret_key = found

    def environment(self) -> dict[str, str]:
        """What the tests look for."""
        return {
            "LAKEHOUSE_TEST_S3_ENDPOINT": self.endpoint,
            "LAKEHOUSE_TEST_S3_ACCESS_KEY": self.access_key,
            "LAKEHOUSE_TEST_S3_SECRET_KEY": self.secret_key,
            "LAKEHOUSE_TEST_S3_ADMIN": f"radosgw-admin -c {self._config} -n client.rgw",
        }

    def start(self, size_bytes: int, kept: bool = False) -> None:
        """Bring everything up, for the first time or again; returns when S3 answers."""
        made = self.root / "made"
        if not made.exists():
            self._make(size_bytes, "bluestore" if kept else "memstore")
            made.touch()
        else:
            self._spawn("ceph-mon", "-i", "a")
            self._spawn("ceph-osd", "-i", "0")
        self._spawn("radosgw", "-n", "client.rgw")
        self._wait_for_s3()

    def _make(self, size_bytes: int, objectstore: str) -> None:
        """Make mon, osd and user, and leave the first two running."""
        self.root.mkdir(parents=True, exist_ok=True)
        fsid, mon_port = str(uuid.uuid4()), free_port()
        self._config.write_text(
            CONFIG.format(
                fsid=fsid,
                mon_port=mon_port,
                root=self.root,
                host=self.host,
                port=self.port,
                size_bytes=size_bytes,
                objectstore=objectstore,
            )
        )
        for folder in ("mon", "osd"):
            # What a first start left that did not come to its end; nobody was served from it.
            shutil.rmtree(self.root / folder, ignore_errors=True)
            (self.root / folder).mkdir()
        (self.root / "monmap").unlink(missing_ok=True)
        monmap = str(self.root / "monmap")
        address = f"[v1:127.0.0.1:{mon_port}]"
        self._do("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
        self._do("ceph-mon", *self._conf(), "--mkfs", "-i", "a", "--monmap", monmap)
        self._spawn("ceph-mon", "-i", "a")
        osd_id = str(uuid.uuid4())
        self._ceph("osd", "new", osd_id)
        self._ceph("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=one")
        self._do("ceph-osd", *self._conf(), "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self._spawn("ceph-osd", "-i", "0")
        self._do(
            "radosgw-admin", *self._conf(), "-n", "client.rgw", "user", "create", "--uid=test",
            "--display-name=test", f"--access-key={self.access_key}",
            f"--secret-key={self.secret_key}",
        )  # fmt: skip

    def check(self) -> None:
        """Raise if a process has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise Failed(f"{process.args[0]} has ended: {self._last_words(process)}")

    def stop(self) -> None:
        """End every process that was started here, newest first; idempotent."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _conf(self) -> tuple[str, str]:
        return ("-c", str(self._config))

    def _spawn(self, program: str, *arguments: str) -> None:
        log = (self.root / f"{program}.out").open("wb")
        with log:
            process = subprocess.Popen(
                [program, "-f", *self._conf(), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # An interrupt at the terminal is ours to pass on, in order.
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)

    def _ceph(self, *arguments: str) -> None:
        """A mon that has only just begun may refuse for a moment what it allows then."""
        until = time.monotonic() + REFUSED_SECONDS
        while True:
            try:
                return self._do("ceph", *self._conf(), "--connect-timeout", "60", *arguments)
            except Failed:
                self.check()
                if time.monotonic() > until:
                    raise
            time.sleep(0.2)

    def _do(self, *command: str) -> None:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=START_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{command[0]} did not end in {START_SECONDS:.0f} s") from error
        if done.returncode:
            text = done.stdout.decode(errors="replace")[-2000:]
            raise Failed(f"{' '.join(command[:6])} failed with {done.returncode}:\n{text}")

    def _wait_for_s3(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self.check()
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise Failed(f"radosgw did not answer in {START_SECONDS:.0f} s")

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        program = Path(process.args[0]).name  # type: ignore[index]
        return (self.root / f"{program}.out").read_text(errors="replace")[-2000:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise Failed(
            f"not installed: {', '.join(missing)}\n"
            f"the tests against a real S3 server need a Ceph radosgw; on Debian and Ubuntu:\n"
            f"    {INSTALL}"
        )


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM takes the way of an exception, so that everything is taken down in order."""
    raise KeyboardInterrupt


def run(command: list[str], environment: dict[str, str]) -> int:
    """The command's exit code; it is ended with us."""
    child = subprocess.Popen(command, env=os.environ | environment)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise


def serve(server: Server, environment: dict[str, str]) -> int:
    """Until interrupted, or until one of the processes ends, which is a failure."""
    for name, value in environment.items():
        print(f"export {name}={value}", flush=True)
    while True:
        time.sleep(1)
        server.check()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size-gib", type=int, default=4, help="most the objects may take")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the objects below DIR")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="where S3 is")
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="CMD", help="run, then end")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    server = None
    kept = options.data is not None
    # The sockets' paths must stay short, so not below a long TMPDIR.
    root = options.data if kept else Path(tempfile.mkdtemp(prefix="lakehouse-s3-", dir="/tmp"))
    host, _, port = options.listen.rpartition(":")
    try:
        check_programs()
        server = Server(root, host, int(port))
        if kept:
            server.keys_from_environment()
        started = time.monotonic()
        server.start(options.size_gib << 30, kept)
        seconds = time.monotonic() - started
        print(f"s3 server on {server.endpoint} after {seconds:.1f} s", file=sys.stderr, flush=True)
        if options.run:
            return run(options.run, server.environment())
        return serve(server, {} if kept else server.environment())
    except Failed as error:
        print(f"s3_server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if server is not None:
            server.stop()
        if not kept:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
