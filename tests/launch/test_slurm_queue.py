"""Jobs in Slurm's queue, as its commands tell of them; the commands are simulated."""

import itertools
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from clusters import installed
from omegaconf import OmegaConf

from fmbench.config import hydra_compat
from fmbench.launch import slurm_queue as of_slurm
from fmbench.launch import submitit as cluster
from fmbench.launch.drive import ASK, LOOK
from fmbench.launch.executor import Sweep, as_before


@pytest.fixture
def controller(monkeypatch):
    """Slurm's commands: what each answers by its name, and what was asked; and a clock of ours.

    An answer is its standard output, with a standard error and a status where there are some, or
    an exception.
    """
    told = SimpleNamespace(now=0.0, answers={}, asked=[], takes=0.0)

    def run(command, **options):
        assert options["timeout"] > 0
        told.asked.append((told.now, command))
        told.now += told.takes
        answer = told.answers.get(command[0], "")
        if isinstance(answer, Exception):
            raise answer
        out, err, status = (answer, "", 0) if isinstance(answer, str) else answer
        return subprocess.CompletedProcess(command, status, out, err)

    monkeypatch.setattr(of_slurm.subprocess, "run", run)
    monkeypatch.setattr(of_slurm.time, "monotonic", lambda: told.now)
    told.times = lambda name: [when for when, command in told.asked if command[0] == name]
    return told


def looked_at(queue, controller, seconds, jobs=("7_0",)):
    """How each of these jobs is said to have ended, looked at every tenth of a second."""
    until = controller.now + seconds
    found = {}
    while controller.now < until:
        for job in set(jobs) - set(found):
            if queue.has_result(job):
                found[job] = "result"
            elif (ending := queue.ending(job)) is not None:
                found[job] = ending
        controller.now += LOOK
    return found


@pytest.fixture
def queue(controller, tmp_path):
    """Fifty jobs of an array, all at work."""
    del controller
    made = of_slurm.Queue()
    made.add({f"7_{task}": tmp_path / f"7_{task}_0_result.pkl" for task in range(50)})
    return made


def test_a_cluster_and_a_shared_disk_are_asked_for_all_jobs_at_once_and_seldom(
    queue, controller, tmp_path, monkeypatch
):
    scans, scandir, jobs = [], os.scandir, [f"7_{task}" for task in range(50)]
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scandir(path))
    for name in ("chmod", "stat", "exists"):
        monkeypatch.setattr(Path, name, lambda *_: pytest.fail("looked at a single file"))
    controller.answers["squeue"] = "".join(f"{job} RUNNING 0\n" for job in jobs)
    assert looked_at(queue, controller, 90, jobs) == {}
    assert len(controller.asked) == len(controller.times("squeue")) == 3
    assert 30 <= len(scans) <= 33
    (tmp_path / "7_3_0_result.pkl").touch()
    assert looked_at(queue, controller, 2 * of_slurm.SCAN, jobs) == {"7_3": "result"}


@pytest.mark.parametrize("trouble", [
    ("", "slurm_load_jobs error: Unable to contact slurm controller", 1),
    subprocess.TimeoutExpired("squeue", 60),
    FileNotFoundError("squeue"),
    "slow",
])  # fmt: skip
def test_a_controller_in_trouble_is_asked_ever_more_seldom(queue, controller, trouble):
    fine = controller.answers["squeue"] = "7_0 RUNNING 0\n"
    assert looked_at(queue, controller, 25) == {}
    if trouble == "slow":
        controller.takes = of_slurm.SLOW
    else:
        controller.answers["squeue"] = trouble
    assert looked_at(queue, controller, 3600) == {}
    times = controller.times("squeue")
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert waits == sorted(waits)
    assert waits[-1] >= of_slurm.LONGEST
    controller.answers["squeue"], controller.takes = fine, 0
    assert looked_at(queue, controller, 3 * of_slurm.LONGEST) == {}
    times = controller.times("squeue")
    assert times[-1] - times[-2] == pytest.approx(of_slurm.INTERVAL, abs=2 * LOOK)


def test_a_job_has_ended_when_that_stands_for_a_while(queue, controller):
    def look(seconds, out, err="", status=0, jobs=("7_0", "7_1")):
        controller.answers["squeue"] = out, err, status
        return looked_at(queue, controller, seconds, jobs)

    look(10.5, "7_0 FAILED 0\n7_1 PENDING 0\n")
    assert look(60, "7_0 PENDING 0\n7_1 PENDING 0\n") == {}  # it went back into the queue
    said = "FAILED, exit status 137 (SIGKILL)"
    assert look(60, f"7_0 FAILED {137 << 8}\n7_1 RUNNING 0\n") == {"7_0": said}
    asked = len(controller.asked)
    assert look(90, f"7_0 FAILED {137 << 8}\n7_1 RUNNING 0\n", jobs=["7_1"]) == {}
    assert len(controller.asked) == asked + 3  # the other is asked about no more often for it
    # Slurm has forgotten the other, as it does after some minutes.
    unreachable = "", "slurm_load_jobs error: Unable to contact slurm controller", 1
    forgotten = "", "slurm_load_jobs error: Invalid job id specified", 1
    assert look(60, *unreachable, jobs=["7_1"]) == {}
    assert look(120, *forgotten, jobs=["7_1"]) == {"7_1": "unknown to Slurm by now"}


def test_a_result_that_a_network_disk_shows_late_is_found(queue, controller, tmp_path, monkeypatch):
    """Before a job is given up its folder is looked at anew."""
    monkeypatch.setattr(Path, "chmod", lambda folder, _: (folder / "7_0_0_result.pkl").touch())
    controller.answers["squeue"] = "7_0 COMPLETED 0\n"
    assert looked_at(queue, controller, 60) == {"7_0": "result"}


def test_jobs_are_asked_to_stop_all_at_once(queue, controller):
    controller.answers["squeue"] = "".join(f"7_{task} RUNNING 0\n" for task in range(50))
    for _ in range(40):  # as `drive` does while they save themselves
        for task in range(50):
            cluster.SlurmProcess(SimpleNamespace(job_id=f"7_{task}"), queue).ask_to_stop()
        looked_at(queue, controller, ASK)
    told = [command for _, command in controller.asked if command[0] == "scancel"]
    assert told[:2] == [
        ["scancel", "--quiet", "--state=PENDING", "7"],
        ["scancel", "--quiet", "--signal=TERM", "7"],
    ]
    assert len(told) <= 2 * 40 * ASK / of_slurm.AGAIN + 2
    controller.answers["squeue"] = "7_0 CANCELLED 0\n"
    assert looked_at(queue, controller, of_slurm.AGAIN) == {"7_0": "CANCELLED"}


@pytest.mark.parametrize(("told", "said"), [
    (f"7 FAILED {137 << 8}\n", "FAILED, exit status 137 (SIGKILL)"),
    ("7 CANCELLED 15\n", "CANCELLED, exit status 143 (SIGTERM)"),
    (f"7 FAILED {1 << 8}\n", "FAILED, exit status 1"),
    ("7 TIMEOUT 0\n", "TIMEOUT"),
    ("", "unknown to Slurm by now"),
])  # fmt: skip
def test_how_a_job_ended(controller, tmp_path, told, said):
    queue = of_slurm.Queue()
    queue.add({"7": tmp_path / "7_0_result.pkl"})
    controller.answers["squeue"] = told
    assert looked_at(queue, controller, 60, ["7"]) == {"7": said}


@pytest.mark.skipif(not installed("submitit"), reason="extra slurm")
@pytest.mark.parametrize("error", [
    subprocess.CalledProcessError(-signal.SIGTERM, "scontrol"),
    subprocess.CalledProcessError(1, "scontrol"),
    subprocess.TimeoutExpired("scontrol", 60),
])  # fmt: skip
def test_a_job_whose_request_for_the_queue_has_no_answer_leaves_no_result(monkeypatch, error):
    """Slurm sends SIGTERM to all processes of such a job, `scontrol requeue` among them."""

    def requeue(*_):
        raise error

    def warned(*_):
        signal.raise_signal(signal.SIGUSR2)

    context = SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=warned))
    config = OmegaConf.create({"hydra": {"runtime": {"cwd": str(Path.cwd())}}})
    runs = cluster.SubmititRuns(Sweep(context, None, config), 1)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    with as_before(signal.SIGUSR2), hydra_compat.separate_state():
        signal.signal(signal.SIGUSR2, requeue)
        with pytest.raises(SystemExit):
            runs(0, ["seed=1"])
