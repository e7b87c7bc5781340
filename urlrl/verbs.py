"""What the command line does, as functions: pretrain, evaluate, report, load."""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.agents import find_agent
from urlrl.config import MAX_SEED, PretrainConfig, pretrain_config_from_json, to_json
from urlrl.data.replay import transition_fields
from urlrl.envs import make_env
from urlrl.errors import UnsupportedPrompt, UserError, check
from urlrl.evaluation import coverage, zero_shot
from urlrl.files import write_atomically
from urlrl.learners.nets import Normalizer
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.streams import env_seed, stream
from urlrl.training import normalizer
from urlrl.training.driver import drive
from urlrl.training.host import Host, example_transition
from urlrl.training.log import Progress, make_progress, read_metrics
from urlrl.training.run import RunFolder
from urlrl.training.saver import Saver
from urlrl.types import EnvSpec, HostEnv, Trajectory, Transition

FIT_LANES = 100  # environments that play at random while the normaliser is fitted


def pretrain(config: PretrainConfig, out: Path | str, *, quiet: bool = False, command: str | None = None) -> Path:
    """Pretrain without reward into the folder `out`; continues a run of the same config that is there.

    Args:
        config: see `urlrl.preset(agent, name)` and `dataclasses.replace`.
        quiet: show no progress.
        command: what the run's config.json gives as the way to repeat it.

    Returns:
        The folder.

    Raises:
        UserError: bad config or environment, or the folder holds another run.
        TrainingDiverged: non-finite numbers; the last checkpoint is whole.
        Interrupted: a signal stopped the run; it was saved and can be continued.
    """
    enable_compilation_cache()
    run = RunFolder(out)
    with ExitStack() as stack:
        stack.enter_context(run.lock())
        run.check(to_json(config))
        env = stack.enter_context(closing(_make_env(config, config.num_envs)))
        progress = make_progress(quiet)
        stack.callback(progress.close)
        _check_normalizer(config, env.env_spec)
        _announce(config, env.env_spec, run, progress)
        agent = create_agent(config, env.env_spec)
        if not run.checkpoints.steps():  # A checkpoint has its own.
            agent = agent.replace(normalizer=make_normalizer(config, env.env_spec, progress))
        loop = Host(config, agent, env)
        saver = Saver(run, config, loop)
        saver.restore(progress)
        # Only now, so that what fails to start leaves no trace in the folder.
        if saver.saved_step < 0:
            run.claim(to_json(config), versions(), command or "", from_step=None)
        elif loop.step < config.steps:
            progress.say(f"Continuing {run.path} from step {loop.step:,}.")
            run.claim(to_json(config), versions(), command or "", from_step=loop.step)
        measure = None
        if config.eval_every and env.env_spec.position:
            measure = _coverage_metric(config, stack.enter_context(closing(_make_env(config, coverage.EPISODES))))
        drive(loop, saver, config, measure, progress)
    return run.path


class Loaded(NamedTuple):
    """A checkpoint's agent; `note` says which damaged checkpoints were passed over, if any were."""

    agent: Any
    config: PretrainConfig
    spec: EnvSpec
    step: int
    note: str


def load(run: Path | str, step: int | None = None) -> tuple[Any, PretrainConfig]:
    """(agent, config) of a run's newest checkpoint that is whole, or of the one at `step`.

    Raises:
        UserError: not a run, no such checkpoint, or it is damaged.
    """
    loaded = load_checkpoint(run, step)
    return loaded.agent, loaded.config


def load_checkpoint(run: Path | str, step: int | None = None) -> Loaded:
    """`load`, and what else is known of the checkpoint."""
    folder = RunFolder(run)
    data = folder.manifest()["config"]
    config = pretrain_config_from_json(data, find_agent(data["agent_name"])[1])
    steps = folder.checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        found = f"those at {', '.join(map(str, steps))}" if steps else "none"
        raise UserError(f"{folder.path} has no checkpoint{'' if step is None else f' at step {step}'}: found {found}.")
    with closing(_make_env(config, 1)) as env:
        spec = env.env_spec
    like, damaged = {"agent": create_agent(config, spec)}, []
    for candidate in reversed(steps) if step is None else [step]:
        try:
            parts, _ = folder.checkpoints.restore(candidate, like)
        except UserError as error:
            damaged.append(error)
            continue
        note = " ".join(f"{error} The checkpoint before it was used." for error in damaged)
        return Loaded(jax.tree.map(jnp.asarray, parts["agent"]), config, spec, candidate, note)
    raise damaged[0]


def evaluate(run: Path | str, *, step: int | None = None, seed: int = 0, json_file: Path | str | None = None) -> dict:
    """Zero-shot evaluation of a run: policy state coverage and goal reaching, each beside the random policy.

    Args:
        step: which checkpoint; None is the newest that is whole.
        seed: of skills, goals, resets and sampled actions.
        json_file: also write the result there; it is always written to `<run>/evaluation.json`.

    Returns:
        {"step", "seed", "env", "coverage": {...} or None, "goals": {...} or None, "notes": [...]}; each part names its
        protocol. What an environment or an agent does not allow is None, and a note says why.
    """
    check("seed", seed, 0, MAX_SEED)
    enable_compilation_cache()
    agent, config, spec, step, note = load_checkpoint(run, step)
    result: dict[str, Any] = {"step": step, "seed": seed, "env": config.env, "coverage": None, "goals": None}
    notes = [note] if note else []
    if not spec.position:
        notes.append(f"Environment '{config.env}' does not say where it is: coverage and goals are left out.")
    else:
        with closing(_make_env(config, coverage.EPISODES)) as env:
            result["coverage"], trajectory = coverage.score(env, agent, seed)
        if not spec.goal_box:
            notes.append(f"Environment '{config.env}' has no goals that its observation can show: goals are left out.")
        else:
            seen = jax.tree.map(lambda x: x[trajectory.mask].astype(np.float32), trajectory.steps)
            try:
                with closing(_make_env(config, zero_shot.NUM_GOALS)) as env:
                    result["goals"] = zero_shot.score(env, agent, seen, seed)
            except UnsupportedPrompt as error:
                notes.append(f"{error} Goals are left out.")
    content = json.dumps({**result, "notes": notes}, indent=2).encode()
    write_atomically(RunFolder(run).path / "evaluation.json", content)
    if json_file is not None:
        write_atomically(Path(json_file), content)
    return {**result, "notes": notes}


def report(run: Path | str, *, step: int | None = None) -> Path:
    """Write `<run>/report/index.html`: skills, curves, latents, goals, config; and videos, where a GL backend
    exists. Evaluates the checkpoint if that was not done.

    Args:
        step: which checkpoint; None is the newest that is whole.

    Returns:
        The page.
    """
    from urlrl.evaluation.report import ReportContent, write_report  # Imports matplotlib: training need not.

    enable_compilation_cache()
    folder = RunFolder(run)
    agent, config, spec, step, _ = load_checkpoint(run, step)
    try:
        evaluation = json.loads((folder.path / "evaluation.json").read_text())
    except (OSError, ValueError):
        evaluation = {"step": None}
    if evaluation["step"] != step:
        evaluation = evaluate(run, step=step)
    with closing(_make_env(config, coverage.EPISODES)) as env:
        model = getattr(env, "model", None)
        trajectory = coverage.scored_episodes(env, agent, evaluation["seed"])
    target, manifest = folder.path / "report", folder.manifest()
    content = ReportContent(
        title=f"{config.agent_name} on {config.env}, {step:,} steps, seed {config.seed}",
        config={**manifest["config"], "command": manifest["command"]},
        versions=manifest["versions"],
        spec=spec,
        trajectory=trajectory,
        latent=_latents(agent, trajectory),
        metrics=[row for row in read_metrics(folder.path / "metrics.jsonl") if row["step"] <= step],
        evaluation=evaluation,
        videos=_videos(model, spec, trajectory, config.agent.z.kind, target),
        skill_kind=config.agent.z.kind,
    )
    return write_report(target, content)


def create_agent(config: PretrainConfig, spec: EnvSpec) -> Any:
    """An untrained agent of this config, from the config's seed."""
    agent_class, _ = find_agent(config.agent_name)
    example = example_transition(spec, config.agent.z.dim, 1)
    return _create(agent_class, config.agent, example, stream(config.seed, "agent"))


@partial(jax.jit, static_argnums=(0, 1))
def _create(agent_class: Any, config: Any, example: Transition, key: jax.Array) -> Any:
    return agent_class.create(config, example, key)


def make_normalizer(config: PretrainConfig, spec: EnvSpec, progress: Progress) -> Normalizer:
    """The frozen observation statistics that the config asks for."""
    if config.normalizer == "off":
        return Normalizer.identity(spec.obs_dim)
    if config.normalizer == "preset":
        return Normalizer(mean=jnp.float32(spec.obs_mean), std=jnp.float32(spec.obs_std))
    progress.say(f"Fitting the normaliser: {normalizer.ROLLOUTS:,} random-action rollouts of {normalizer.STEPS} steps.")
    with closing(_make_env(config, FIT_LANES)) as env:
        mean, std = normalizer.fit_statistics(env, normalizer.ROLLOUTS, env_seed(config.seed, "fit"))
    return Normalizer(mean=jnp.float32(mean), std=jnp.float32(std))


def _check_normalizer(config: PretrainConfig, spec: EnvSpec) -> None:
    if config.normalizer == "preset" and (spec.obs_mean is None or spec.obs_std is None):
        raise UserError(
            f"Environment '{config.env}' has no published normalisation constants: "
            f"expected --normalizer fit or --normalizer off."
        )


def _make_env(config: PretrainConfig, num_envs: int) -> HostEnv:
    return make_env(config.env, num_envs, episode_steps=config.episode_steps, root_position=config.root_position)


def _coverage_metric(config: PretrainConfig, env: HostEnv) -> Callable[[Any, int], dict[str, float]]:
    """What is measured during training, on an environment of its own."""
    key, resets = stream(config.seed, "coverage"), env_seed(config.seed, "coverage")

    def measure(agent: Any, step: int) -> dict[str, float]:
        trajectory = coverage.skill_episodes(env, agent, jax.random.fold_in(key, step), resets)
        return {"eval/coverage": float(coverage.coverage(coverage.visited(trajectory)))}

    return measure


def _latents(agent: Any, trajectory: Trajectory) -> np.ndarray | None:
    """phi along the episodes, (T + 1, n, d); None for an agent without one."""
    if not hasattr(agent, "latent"):
        return None
    obs = np.concatenate([trajectory.steps.obs[:1], trajectory.steps.next_obs]).astype(np.float32)
    return np.asarray(jax.jit(type(agent).latent)(agent, obs))


def _videos(model: Any, spec: EnvSpec, trajectory: Trajectory, kind: str, folder: Path) -> list[Path] | str:
    if model is None or trajectory.physics is None:
        return f"Environment '{spec.id}' has no MuJoCo model to render: there are no videos."
    from urlrl.evaluation.video import choose_episodes, render_videos

    qpos = trajectory.physics[..., : dict(spec.physics)["qpos"]]
    lanes, labels = choose_episodes(trajectory.steps.z[0], kind)
    return render_videos(model, qpos[:, lanes], folder, fps=1 / (spec.control_dt or 1), labels=labels)


def _announce(config: PretrainConfig, spec: EnvSpec, run: RunFolder, progress: Progress) -> None:
    """What a run is about to do and what it takes; and, also where it is quiet, what a user may not expect of it."""
    fields = transition_fields(spec, config.agent.z.dim)
    row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in fields.values()) / 2**20
    rows = config.steps if config.keep_data == "all" else min(config.steps, 2 * config.replay_capacity)
    progress.say(
        f"Pretraining {config.agent_name} on {config.env}, seed {config.seed}, {config.steps:,} steps, in {run.path}.\n"
        f"Transitions: {row * min(config.steps, config.replay_capacity):,.0f} MiB in memory, "
        f"{row * rows:,.0f} MiB on disk (keep_data={config.keep_data})."
    )
    measured = coverage.EPISODES * (spec.episode_steps or 0)
    if not spec.position:
        progress.note(f"Environment '{config.env}' does not say where it is: coverage is not measured.")
    elif config.eval_every and config.eval_every < 2 * measured:
        progress.say(
            f"Each coverage evaluation takes {measured:,} steps of its own, every {config.eval_every:,} steps."
        )
    if not spec.exact_resume:
        progress.note(
            f"Environment '{config.env}' cannot save its state: a resumed run begins new episodes at its checkpoint."
        )
    if config.min_replay > config.steps:
        progress.note(f"min_replay is {config.min_replay:,}, more than the run's steps: nothing will be learned.")
