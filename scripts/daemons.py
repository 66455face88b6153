"""Real Slurm, or real PostgreSQL, on one machine for as long as one command takes.

    python scripts/daemons.py slurm sinfo
    python scripts/daemons.py slurm python -m fmbench -m seed=range(4) hydra/launcher=submitit_slurm
    python scripts/daemons.py postgresql sh -c 'psql "$PGURL" -c "select version()"'

Starts the daemons (`munged`, `slurmctld` and `slurmd`; or `postgres`) in a temporary folder, on
ports that are free, gives the command the environment that finds them, ends exactly the processes
that it started, and exits with the command's status. Needs Debian's `slurm-wlm` and `munge`, or
`postgresql`; no systemd, no root (as root, PostgreSQL runs as the user `postgres`).

In the environment of the command:

- slurm: SLURM_CONF, the configuration; the daemons' logs lie beside it.
- postgresql: PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD, which its clients read, and PGURL,
  what Optuna calls the storage, without the password.
"""

import argparse
import contextlib
import getpass
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

#: Seconds that daemons get to answer, and to end.
PATIENCE = 30

#: Where Debian keeps what belongs to administrators.
PLACES = ("/usr/sbin", "/usr/local/sbin")

SLURM_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class MissingError(Exception):
    """A program that is not installed; its text names it."""


def program(name: str, *more: str) -> str:
    """The path of an installed program.

    Raises:
        MissingError: it is not there.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *PLACES, *more]))
    if found is None:
        raise MissingError(f"{name} is not installed")
    return found


@contextlib.contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Slurm with this machine as its only node.

    Yields:
        The environment variables that its commands need.

    Raises:
        MissingError: it is not installed.
        RuntimeError: it does not start.
    """
    paths = {name: program(name) for name in ("munged", "slurmctld", "slurmd", "sinfo", "scancel")}
    with _folder(0o711) as folder, contextlib.ExitStack() as daemons:

        def start(name: str, *arguments: str) -> None:
            daemons.enter_context(
                _daemon([paths[name], *arguments], folder / f"{name}.log", environment)
            )

        text = SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            ports=_free_ports(2),
            folder=folder,
            user=getpass.getuser(),
            cpus=len(os.sched_getaffinity(0)),
        )
        (folder / "slurm.conf").write_text(text, "utf-8")
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        files = {"key": "key", "socket": "socket", "pid": "pid", "seed": "seed"}
        names = {"key": "key-file", "socket": "socket", "pid": "pid-file", "seed": "seed-file"}
        start("munged", "-F", *(f"--{names[n]}={folder}/munge.{files[n]}" for n in names))
        _wait((folder / "munge.socket").exists, folder / "munged.log")
        start("slurmctld", "-D", "-i")
        start("slurmd", "-D")

        def idle() -> bool:
            done = subprocess.run(
                [paths["sinfo"], "-h", "-o", "%T"],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.strip() == "idle"

        _wait(idle, folder / "slurmctld.log")
        try:
            yield environment
        finally:
            # Jobs outlive `slurmd`, and all that is running here was started by the command.
            kill = [paths["scancel"], "--quiet", "--signal=KILL", "--full", "--user"]
            subprocess.run(
                [*kill, getpass.getuser()],
                env={**os.environ, **environment},
                capture_output=True,
                check=False,
            )


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    """PostgreSQL with one empty database, on 127.0.0.1 and with a password.

    Yields:
        The environment variables that its clients read, and PGURL.

    Raises:
        MissingError: it is not installed.
        RuntimeError: it does not start.
    """
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    places = [str(path) for path in reversed(newest)]
    paths = {name: program(name, *places) for name in ("initdb", "postgres", "pg_isready")}
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    (port,) = _free_ports(1)
    password = secrets.token_urlsafe(16)
    with _folder(0o711) as folder:
        home = folder / "postgresql"
        home.mkdir()
        secret = home / "password"
        secret.touch(0o600)
        secret.write_text(password, "utf-8")
        if user is not None:
            shutil.chown(home, user)
            shutil.chown(secret, user)
        data = home / "data"
        command = [paths["initdb"], "-D", str(data), "-U", "fmbench", "--no-sync", "-A"]
        made = subprocess.run(
            [*command, "scram-sha-256", f"--pwfile={secret}"],
            user=user,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(f"initdb: {made.stderr.strip()}")
        settings = [f"unix_socket_directories={home}", "fsync=off", "max_connections=50"]
        options = [part for text in settings for part in ("-c", text)]
        command = [paths["postgres"], "-D", str(data), "-h", "127.0.0.1", "-p", str(port), *options]
        # SIGINT ends it also while clients are connected.
        with _daemon(command, folder / "postgres.log", {}, user=user, cwd=home, end=signal.SIGINT):
            ask = [paths["pg_isready"], "-q", "-h", "127.0.0.1", "-p", str(port)]
            _wait(lambda: subprocess.call(ask) == 0, folder / "postgres.log")
            yield {
                "PGHOST": "127.0.0.1",
                "PGPORT": str(port),
                "PGUSER": "fmbench",
                "PGDATABASE": "postgres",
                "PGPASSWORD": password,
                "PGURL": f"postgresql+psycopg://fmbench@127.0.0.1:{port}/postgres",
            }


@contextlib.contextmanager
def _folder(mode: int) -> Iterator[Path]:
    """A short name: a socket's path may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="fmbench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(mode)
        yield folder


@contextlib.contextmanager
def _daemon(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    *,
    user: str | None = None,
    cwd: Path | None = None,
    end: int = signal.SIGTERM,
) -> Iterator[None]:
    """A process that lives as long as the block, and is then sent the signal `end`."""
    ids = pwd.getpwnam(user) if user else None
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            user=user,
            group=ids.pw_gid if ids else None,
            start_new_session=True,  # Ctrl-C is for the command
        ) as process,
    ):
        try:
            yield
        finally:
            process.send_signal(end)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready after {PATIENCE} s:\n{log.read_text('utf-8')}")
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


DAEMONS = {"slurm": slurm, "postgresql": postgresql}


def main() -> int:
    """Run the command line; returns the status of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("daemons", choices=list(DAEMONS))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("a command to run is missing")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that they end too
    try:
        with DAEMONS[arguments.daemons]() as environment:
            return subprocess.call(arguments.command, env={**os.environ, **environment})
    except (MissingError, RuntimeError) as error:
        print(f"daemons: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
