"""Work on many runs: one after another, in several processes at a time, or as jobs of a cluster. What fails is named,
and the others go on.

A piece of work is one ordinary run that is trained or evaluated, and the run's folder is locked while it is trained: a
launcher that is killed loses nothing. `python -m urlrl.verbs.launch JSON` does one piece in a process of its own.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from urlrl.agents import find_agent
from urlrl.config import RunConfig, run_config_from_json, to_json
from urlrl.errors import InUse, RunsFailed, UserError, check, check_choice, reason, shown
from urlrl.runtime import threads_divided
from urlrl.training.log import Progress, Quiet, make_progress
from urlrl.training.run import RunFolder
from urlrl.training.stop import Interrupted, stop_requested

logger = logging.getLogger(__name__)
CHILD = [sys.executable, "-P", "-m", "urlrl.verbs.launch"]  # -P: nothing is imported from the working folder
CLUSTER = "slurm"  # what submitit calls it
JOB_MINUTES = 24 * 60  # of a job, where the study says nothing; submitit's own 5 minutes are too few
POLL_SECONDS = 0.1
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # JAX else takes most of a GPU's memory for one process


@dataclass(frozen=True)
class Work:
    """A run to train, or one to evaluate."""

    name: str  # of the run, as sentences say it
    folder: Path
    config: RunConfig | None = None  # of a run to train
    command: str | None = None  # what its config.json says
    continue_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        return "training" if self.config else "evaluation"

    def to_json(self) -> dict[str, Any]:
        config = None if self.config is None else to_json(self.config)
        same = {"name": self.name, "command": self.command, "continue_with": dict(self.continue_with)}
        return {**same, "folder": str(self.folder), "config": config}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Work":
        config = data["config"] and run_config_from_json(data["config"], find_agent(data["config"]["agent_name"])[1])
        return cls(**{**data, "folder": Path(data["folder"]), "config": config})


def is_trained(folder: Path, config: RunConfig) -> bool:
    """Whether the run has all its steps."""
    steps = RunFolder(folder).checkpoints.steps()
    return bool(steps) and steps[-1] >= config.steps


def check_launcher(launcher: str = "local", workers: int = 1, slurm: Mapping[str, Any] | None = None) -> None:
    """Raises UserError where there is no such launcher, or it is not installed."""
    check_choice("launcher", str(launcher), ("local", "slurm"))
    if not isinstance(workers, int) or isinstance(workers, bool):
        raise UserError(f"workers is {shown(repr(workers))}: expected a whole number.")
    check("workers", workers, 1)
    if not isinstance(slurm or {}, dict):
        raise UserError(f"slurm is {shown(repr(slurm))}: expected a table of parameters.")
    if launcher == "slurm" and not find_spec("submitit"):
        raise UserError(
            "Launcher 'slurm' needs the package submitit, which is not installed: expected it (pip install "
            "'urlrl[slurm]'), or launcher 'local'."
        )


def launch(
    work: Sequence[Work], *, launcher: str = "local", workers: int = 1, jobs: Path = Path("jobs"),
    slurm: Mapping[str, Any] | None = None, quiet: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Do all of it; what is in use by another process is waited for.

    Args:
        workers: processes of launcher "local" that work at a time, which share the cores; one is this process.
        jobs: the folder in which launcher "slurm" keeps its jobs.
        slurm: parameters of its jobs, as submitit has them.

    Returns:
        Of what failed: name -> why. A run that has all its steps in the end, as from another launcher, is not among
        them.

    Raises:
        UserError: the cluster does not take the jobs.
        Interrupted: a signal stopped the work; runs were saved and can be continued.
    """
    if not work:
        return {}
    if launcher == "slurm":
        failed = _slurm(work, jobs, slurm or {}, quiet)
    elif workers == 1:
        failed = _here(work, quiet)
    else:
        with closing(make_progress(quiet)) as progress:
            failed = _in_processes(work, workers, progress)
    trained = {one.name for one in work if one.config and is_trained(one.folder, one.config)}
    return {name: why for name, why in failed.items() if name not in trained}


def share_memory(workers: int) -> None:
    """Let this process leave memory of a GPU to several others, where it has not begun to use it."""
    if workers > 1:
        os.environ.update({**SHARED, **os.environ})


def raise_failed(failed: Mapping[str, str], count: int) -> None:
    """Raises RunsFailed, which names those of `count` runs that failed, if any did."""
    if failed:
        said = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in failed.items())
        raise RunsFailed(f"{len(failed)} of {count} runs failed, and the same command tries them again: {said}.")


# Launchers.


def _command(one: Work) -> list[str]:
    """What does it in a process of its own."""
    return [*CHILD, json.dumps(one.to_json())]


def _here(work: Sequence[Work], quiet: bool) -> dict[str, str]:
    """One after another in this process, which compiles what is alike once."""
    progress, failed = Quiet(), dict[str, str]()  # Each run shows how far it is.
    for one in work:
        _note_in_use([one], progress)
        try:
            _do_when_free(one, quiet)
        except Interrupted:
            raise
        except UserError as error:
            failed[one.name] = str(error)
        except Exception as error:
            logger.error("%s failed:", one.name, exc_info=error)
            failed[one.name] = f"{type(error).__name__}: {reason(error)}"
    return failed


def _in_processes(work: Sequence[Work], workers: int, progress: Progress) -> dict[str, str]:
    """Each piece in a process of its own, so many at a time."""
    environment = {**SHARED, **os.environ, **threads_divided(workers)}
    failed: dict[str, str] = {}
    waiting, running = list(work), dict[str, tuple[subprocess.Popen, Any]]()
    with stop_requested(progress) as stop:
        stop.unsaved = True  # The processes save; this one waits for them.
        _note_in_use(work, progress)
        try:
            while (waiting or running) and not stop.name:
                for one in [one for one in waiting if not RunFolder(one.folder).in_use()][: workers - len(running)]:
                    waiting.remove(one)
                    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
                    process = subprocess.Popen(_command(one), env=environment, stderr=said)
                    running[one.name] = process, said
                    progress.say(f"{one.name}: {one.what} begun in {one.folder}.")
                time.sleep(POLL_SECONDS)
                for name in [name for name, (process, _) in running.items() if process.poll() is not None]:
                    code, lines = _ended(*running.pop(name))
                    if code:
                        failed[name] = _why(lines) or f"exit code {code}"
                    for line in lines:
                        progress.note(f"{name}: {line}")
                    progress.say(f"{name}: {'failed' if code else 'done'}; {len(waiting)} are to be begun.")
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, said in running.values():
                _ended(process, said)
    if stop.name:
        raise Interrupted(f"Stopped by {stop.name}: the runs are saved, and the same command continues.")
    return failed


def _note_in_use(work: Sequence[Work], progress: Progress) -> None:
    for one in work:
        if RunFolder(one.folder).in_use():
            progress.note(f"{one.name}: {one.folder} is in use by another process, which is waited for.")


def _ended(process: subprocess.Popen, said: Any) -> tuple[int, list[str]]:
    """Exit code of a process, and the lines that it wrote."""
    code = process.wait()
    with said:
        said.seek(0)
        return code, said.read().decode(errors="replace").splitlines()


def _slurm(work: Sequence[Work], jobs: Path, slurm: Mapping[str, Any], quiet: bool) -> dict[str, str]:
    """Each piece as a job, all of which this process waits for; they go on where it is killed."""
    import submitit

    parameters = {"name": "urlrl", "timeout_min": JOB_MINUTES, **slurm}
    commands = {one.name: _command(one) for one in work}
    try:
        executor = submitit.AutoExecutor(folder=jobs, cluster=CLUSTER)
        executor.update_parameters(**parameters)
        with executor.batch():
            begun = {name: executor.submit(submitit.helpers.CommandFunction(one)) for name, one in commands.items()}
    except (RuntimeError, NameError, AssertionError, TypeError) as error:
        raise UserError(f"Launcher 'slurm' cannot begin jobs: {reason(error)}.") from error
    failed = {}
    with closing(make_progress(quiet)) as progress:
        for name, job in begun.items():
            progress.say(f"{name}: job {job.job_id}.")
        for name, job in begun.items():
            if (trouble := job.exception()) is not None:
                failed[name] = _why(str(job.stderr() or trouble).splitlines())
            progress.say(f"{name}: {'failed' if name in failed else 'done'}.")
    return failed


def _why(lines: list[str]) -> str:
    """Of what a process wrote: its sentence, or else its last line."""
    said = [line.removeprefix("urlrl: ") for line in lines if line.startswith("urlrl: ")]
    return next(iter([*said, *reversed([line for line in lines if line.strip()])]), "")


# One piece.


def _do_when_free(one: Work, quiet: bool) -> None:
    """Wait for another process that trains there; it may also come first by a moment."""
    while True:
        while RunFolder(one.folder).in_use():
            time.sleep(POLL_SECONDS)
        try:
            return _do(one, quiet)
        except InUse:
            continue


def _do(one: Work, quiet: bool) -> None:
    from urlrl.verbs.evaluate import evaluate
    from urlrl.verbs.pretrain import pretrain

    if one.config is None:
        evaluate(one.folder)
    else:
        pretrain(one.config, one.folder, continue_with=one.continue_with, quiet=quiet, command=one.command)


def main() -> None:
    """In a process of its own: the errors are what the command line makes of them."""
    try:
        _do_when_free(Work.from_json(json.loads(sys.argv[1])), quiet=True)
    except UserError as error:
        print(f"urlrl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
