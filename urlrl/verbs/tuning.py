"""Learning in a task by the loop of pretraining, in a folder of its own: stopped or killed, it goes on bit for bit."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from urlrl.adaptation.config import METHODS
from urlrl.adaptation.methods import TRAIN, Setting, Start, Training, prepare
from urlrl.adaptation.tuned import Controlled, Kept, Tuned
from urlrl.errors import UserError
from urlrl.evaluation.rollout import acting
from urlrl.training.driver import Measure, Member, drive, raise_diverged
from urlrl.training.host import Host
from urlrl.training.log import MetricsLog, Progress, read_metrics
from urlrl.training.loop import Loop
from urlrl.training.recorder import Recorder
from urlrl.training.run import RunFolder
from urlrl.training.saver import Saver, restore
from urlrl.training.seeds import Seeds
from urlrl.training.stop import Stop
from urlrl.verbs.tuned import keep_search, read_search


def train(folder: Path, method: str, setting: Setting, stop: Stop, progress: Progress) -> None:
    """Learn in the task into `folder`, which is claimed and locked, or go on from where an earlier call was stopped.
    The curve, and what there is to note, are in `setting` then.

    Raises:
        UnsupportedPrompt: the agent cannot learn like this.
        Interrupted: a signal came; the same call goes on.
        TrainingDiverged: numbers are no longer finite; the last checkpoint is whole.
    """
    run = RunFolder(folder)
    start = (_prepared(folder, setting),) if METHODS[method].searches else ()
    training = TRAIN[method](setting, *start)
    measure = _measure(training, setting)
    agent, step = _finished(run, training) or _drive(run, training, measure, stop, progress)
    rows = [row for row in read_metrics(run.path / "metrics.jsonl") if "eval/return" in row]
    if not rows or rows[-1]["step"] < step:  # The end of the budget need not be one of `eval_every`.
        rows.append({"step": step, **measure(agent, step)})
        with closing(MetricsLog(run.path, step)) as log:
            log.write(step, {name: value for name, value in rows[-1].items() if name != "step"})
    shutil.rmtree(run.path / "replay", ignore_errors=True)  # Only going on takes its transitions.
    search = [point for point in setting.curve if point[0] < training.spent]
    setting.curve = search + [(_axis(training, row["step"]), row["eval/return"]) for row in rows]


def _prepared(folder: Path, setting: Setting) -> Start:
    """The search that fine-tuning begins with: a stage of its own, which is done again where it was not over."""
    if (found := read_search(folder, setting.agent.config.z.dim)) is None:
        start = prepare(setting)
        keep_search(folder, start, setting.curve)
        return start
    start, setting.curve = found
    return start


def _measure(training: Training, setting: Setting) -> Measure:
    evaluation = setting.make_env(setting.config.eval_episodes)

    def measure(agent: Tuned, step: int) -> dict[str, float]:
        controls = METHODS[training.config.agent_name].keeps == "controller"
        policy: Kept = Controlled(setting.agent, agent, training.hold) if controls else agent
        returns = setting.returns(evaluation, acting(policy), _axis(training, step))
        return {"eval/return": float(returns.mean()), "eval/return_std": float(returns.std())}

    return measure


def _finished(run: RunFolder, training: Training) -> tuple[Any, int] | None:
    """The agent and the step at the end, where an earlier call got there and its checkpoint is whole."""
    steps = run.checkpoints.steps()
    if not steps or steps[-1] < training.config.steps:
        return None
    try:
        parts, _ = run.checkpoints.restore(steps[-1], {"agent": training.agent})
    except UserError:  # `restore` goes on from the one before.
        return None
    return jax.tree.map(jnp.asarray, parts["agent"]), steps[-1]


def _drive(run: RunFolder, training: Training, measure: Measure, stop: Stop, progress: Progress) -> tuple[Any, int]:
    config, agent, use = training.config, training.agent, f"adapt {training.config.agent_name}"
    loop: Loop
    if config.loop == "device":
        loop = Seeds(config, {config.seed: agent}, training.env, jax.devices()[:1], use)
    else:
        loop = Host(config, agent, training.env, use)
    lane = loop.runs[0]
    saver = Saver(run, config, lane, Recorder(run, config, lane))
    restore([saver], progress)
    if saver.saved_step >= 0:
        progress.say(f"Continuing {run.path} from step {_axis(training, lane.step):,} in the task.")
    member = Member(lane, saver, measure)
    drive(loop, [member], config, stop, progress)
    raise_diverged([member])
    return lane.agent, lane.step


def _axis(training: Training, step: int) -> int:
    """Control steps in the task, those of a search included, at this step of the loop."""
    return training.spent + training.hold * step
