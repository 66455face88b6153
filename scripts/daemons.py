"""Real Slurm, PostgreSQL or Ray on one machine for as long as one command takes.

    python scripts/daemons.py slurm sinfo
    python scripts/daemons.py slurm python -m fmbench -m seed=range(4) hydra/launcher=submitit_slurm
    python scripts/daemons.py postgresql sh -c 'psql "$PGURL" -c "select version()"'
    python scripts/daemons.py ray python -m fmbench -m seed=range(4) hydra/launcher=ray

Starts the daemons (`munged`, `slurmctld` and `slurmd`; `postgres`; or those of Ray) in a temporary
folder, on ports that are free, gives the command the environment that finds them, ends exactly the
processes that it started, and exits with the command's status. Needs Debian's `slurm-wlm` and
`munge`, Debian's `postgresql`, or the extra `ray`; no systemd, no root (as root, PostgreSQL runs as
the user `postgres`).

In the environment of the command:

- slurm: SLURM_CONF, the configuration; the daemons' logs lie beside it.
- postgresql: PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD, which its clients read, and PGURL,
  what Optuna calls the storage, without the password.
- ray: RAY_ADDRESS, of a Ray with this machine's cores, and the token that it asks for.
"""

import argparse
import contextlib
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Seconds that daemons get to answer, and to end.
PATIENCE = 60

#: Where Debian keeps what belongs to administrators, and each version of PostgreSQL.
PLACES = (
    *("/usr/sbin", "/usr/local/sbin"),
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
)

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


def programs(*names: str) -> list[str]:
    """The paths of installed programs; raises a MissingError where one is not there."""
    path = os.pathsep.join([os.environ["PATH"], *PLACES])
    found = [shutil.which(name, path=path) for name in names]
    if None in found:
        raise MissingError(f"{names[found.index(None)]} is not installed")
    return found


@contextlib.contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Slurm with this machine as its only node; yields the variables that its commands need.

    Raises:
        MissingError: it is not installed.
        RuntimeError: it does not start.
    """
    names = ("munged", "slurmctld", "slurmd", "sinfo", "scancel")
    munged, slurmctld, slurmd, sinfo, scancel = programs(*names)
    with _folder() as folder, contextlib.ExitStack() as daemons:
        user = getpass.getuser()
        configuration = SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            ports=[_free_port(), _free_port()],
            folder=folder,
            user=user,
            cpus=len(os.sched_getaffinity(0)),
        )
        (folder / "slurm.conf").write_text(configuration, "utf-8")
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").touch(0o600)
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        environment = {**os.environ, **variables}

        def start(*command: str) -> Path:
            log = folder / f"{Path(command[0]).name}.log"
            daemons.enter_context(_daemon(command, log, environment))
            return log

        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        log = start(munged, "-F", *(f"--{name}={folder}/munge.{files[name]}" for name in files))
        _wait((folder / "munge.socket").exists, log)
        log = start(slurmctld, "-D", "-i")
        start(slurmd, "-D")
        _wait(lambda: _run(sinfo, "-h", "-o", "%T", env=environment).stdout == "idle\n", log)
        try:
            yield variables
        finally:
            # Jobs outlive `slurmd`, and all that is running here was started by the command.
            cancel = ("--quiet", "--signal=KILL", "--full", "--user", user)
            _run(scancel, *cancel, env=environment)


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    """PostgreSQL with one empty database; yields the variables that its clients read, and PGURL.

    It listens on 127.0.0.1 and wants a password; raises as `slurm` does.
    """
    (pg_ctl,) = programs("pg_ctl")
    port, password = _free_port(), secrets.token_urlsafe(16)
    with _folder() as folder:
        home, secret = folder / "postgresql", folder / "postgresql" / "password"
        home.mkdir()
        secret.touch(0o600)
        secret.write_text(password, "utf-8")
        # It refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        for path in (home, secret) if user else ():
            shutil.chown(path, user, user)

        def control(action: str, *options: str) -> None:
            command = (pg_ctl, action, "-D", f"{home}/data", *options)
            done = _run(*command, cwd=home, user=user, group=user)
            if done.returncode:
                raise RuntimeError(f"pg_ctl {action}: {(done.stderr + done.stdout).strip()}")

        control("initdb", "-o", f"-U fmbench --no-sync -A scram-sha-256 --pwfile={secret}")
        options = f"-h 127.0.0.1 -p {port} -k {home} -c fsync=off -c max_connections=50"
        control("start", "-w", "-t", str(PATIENCE), "-l", str(home / "log"), "-o", options)
        try:
            yield {
                "PGHOST": "127.0.0.1",
                "PGPORT": str(port),
                "PGUSER": "fmbench",
                "PGDATABASE": "postgres",
                "PGPASSWORD": password,
                "PGURL": f"postgresql+psycopg://fmbench@127.0.0.1:{port}/postgres",
            }
        finally:
            control("stop", "-m", "fast")  # also while clients are connected


#: Ray ends with the process that began it. Arguments: its cores and its folder.
RAY = """\
import signal, sys, ray
options = {"num_cpus": int(sys.argv[1]), "include_dashboard": False, "_temp_dir": sys.argv[2]}
ray.init("local", **options)
print("address", ray.get_runtime_context().gcs_address, flush=True)
signal.pause()
"""


@contextlib.contextmanager
def ray() -> Iterator[dict[str, str]]:
    """Ray with this machine as its only node; yields the variables that its clients read.

    It asks for a token; raises as `slurm` does.
    """
    if find_spec("ray") is None:
        raise MissingError("ray is not installed")
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_urlsafe(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    cores = str(len(os.sched_getaffinity(0)))
    with _folder() as folder:
        log = folder / "ray.log"
        command = (sys.executable, "-c", RAY, cores, str(folder))
        with _daemon(command, log, {**os.environ, **variables}):
            address = _wait(
                lambda: re.search(r"^address (\S+)$", log.read_text("utf-8"), re.M), log
            )
            yield {**variables, "RAY_ADDRESS": address[1]}


def _run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A short name: a socket's path may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="fmbench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@contextlib.contextmanager
def _daemon(command: tuple[str, ...], log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A process that lives as long as the block."""
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    own = {"start_new_session": True}  # Ctrl-C is for the command
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=environment, stdout=out, **quiet, **own) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()  # does nothing to one that has ended


def _wait(ready: Callable[[], Any], log: Path) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := ready()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready after {PATIENCE} s:\n{log.read_text('utf-8')}")
        time.sleep(0.05)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


DAEMONS = {"slurm": slurm, "postgresql": postgresql, "ray": ray}


def main() -> None:
    """Run the command line; exits with the status of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("daemons", choices=DAEMONS)
    parser.add_argument("program", help="the command to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    typed = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that they end too
    try:
        with DAEMONS[typed.daemons]() as environment:
            command = [typed.program, *typed.arguments]
            sys.exit(subprocess.call(command, env={**os.environ, **environment}))
    except (MissingError, RuntimeError) as error:
        sys.exit(f"daemons: {error}")


if __name__ == "__main__":
    main()
