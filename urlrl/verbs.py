"""What the command line does, as functions: pretrain, evaluate, report, load."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.agents import find_agent
from urlrl.config import PretrainConfig, pretrain_config_from_json, to_json
from urlrl.data.replay import transition_fields
from urlrl.doctor import compilation_cache
from urlrl.envs import make_env
from urlrl.errors import UserError
from urlrl.evaluation import coverage, zero_shot
from urlrl.evaluation.rollout import follow, rollout, uniform
from urlrl.files import write_atomically
from urlrl.learners.nets import Normalizer
from urlrl.training.driver import drive
from urlrl.training.host import Host, example_transition
from urlrl.training.log import Progress, make_progress, read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import EnvSpec, HostEnv, Trajectory, Transition

FIT_ROLLOUTS, FIT_STEPS, FIT_LANES = 10_000, 50, 100  # how METRA's published constants were made
VERSIONED = ("urlrl", "jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "gymnasium", "dm_control")


def pretrain(config: PretrainConfig, out: Path | str, *, quiet: bool = False, command: str | None = None) -> Path:
    """Pretrain without reward into the folder `out`; continues a run of the same config that is there.

    Args:
        config: see `urlrl.preset(agent, name)` and `dataclasses.replace`.
        quiet: show no progress.
        command: what the run's manifest gives as the way to repeat it.

    Returns:
        The folder.

    Raises:
        UserError: bad config or environment, or the folder holds another run.
        TrainingDiverged: non-finite numbers; the last checkpoint is whole.
        Interrupted: a signal stopped the run; it was saved and can be continued.
    """
    enable_compilation_cache()
    run = RunFolder(out)
    env = _make_env(config, config.num_envs)
    _check_normalizer(config, env.env_spec)
    with run.lock():
        run.claim(to_json(config), versions(), command or "")
        progress = make_progress(quiet)
        try:
            agent = create_agent(config, env.env_spec)
            if not run.checkpoints.steps():
                agent = agent.replace(normalizer=make_normalizer(config, env.env_spec, progress))
            progress.note(_announce(config, env.env_spec, run))
            drive(Host(config, agent, env), run, config, _coverage_metric(config, env.env_spec), progress)
        finally:
            progress.close()
            env.close()
    return run.path


def load(run: Path | str, step: int | None = None) -> tuple[Any, PretrainConfig]:
    """(agent, config) of a run's newest checkpoint, or of the one at `step`."""
    folder = RunFolder(run)
    data = folder.manifest()["config"]
    config = pretrain_config_from_json(data, find_agent(data["agent_name"])[1])
    steps = folder.checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        found = f"those at {', '.join(map(str, steps))}" if steps else "none"
        raise UserError(f"{folder.path} has no checkpoint{'' if step is None else f' at step {step}'}: found {found}.")
    like = {"agent": create_agent(config, _spec(config))}
    parts, _ = folder.checkpoints.restore(steps[-1] if step is None else step, like)
    return jax.tree.map(jnp.asarray, parts["agent"]), config


def evaluate(run: Path | str, *, step: int | None = None, seed: int = 0, json_file: Path | str | None = None) -> dict:
    """Zero-shot evaluation of a run: policy state coverage and goal reaching, each beside the random policy.

    Args:
        step: which checkpoint; None is the newest.
        seed: of skills, goals, resets and sampled actions.
        json_file: also write the result there; it is always written to `<run>/evaluation.json`.

    Returns:
        {"step", "seed", "env", "coverage": {...} or None, "goals": {...} or None, "notes": [...]}; each part names its
        protocol. What an environment or an agent does not allow is None, and a note says why.
    """
    enable_compilation_cache()
    agent, config = load(run, step)
    spec = _spec(config)
    step = RunFolder(run).checkpoints.steps()[-1] if step is None else step
    result: dict[str, Any] = {"step": step, "seed": seed, "env": config.env, "coverage": None, "goals": None}
    notes: list[str] = []
    if not spec.position:
        notes.append(f"Environment '{config.env}' does not say where it is: coverage and goals are left out.")
    else:
        result["coverage"], trajectory = _evaluate_coverage(agent, config, seed)
        if not spec.goal_box:
            notes.append(f"Environment '{config.env}' has no goals that its observation can show: goals are left out.")
        else:
            result["goals"] = _evaluate_goals(agent, config, trajectory, seed)
    result["notes"] = notes
    content = json.dumps(result, indent=2).encode()
    write_atomically(RunFolder(run).path / "evaluation.json", content)
    if json_file is not None:
        write_atomically(Path(json_file), content)
    return result


def _evaluate_coverage(agent: Any, config: PretrainConfig, seed: int) -> tuple[dict[str, Any], Trajectory]:
    trajectory = skill_episodes(agent, config, seed)
    env = _make_env(config, coverage.EPISODES)
    random = coverage.skill_rollout(env, uniform(env.env_spec.action_dim), jax.random.key(seed), seed)
    env.close()
    points = coverage.visited(trajectory)
    result = {
        "protocol": coverage.PROTOCOL,
        "episodes": coverage.EPISODES,
        "unit": "1 m cells",
        "agent": coverage.coverage(points),
        "random": coverage.coverage(coverage.visited(random)),
        "min": points.min(axis=0).tolist(),
        "max": points.max(axis=0).tolist(),
    }
    return result, trajectory


def _evaluate_goals(agent: Any, config: PretrainConfig, trajectory: Trajectory, seed: int) -> dict[str, Any]:
    goals = zero_shot.draw_goals(_spec(config).goal_box, zero_shot.NUM_GOALS, seed)
    env = _make_env(config, len(goals))
    seen = jax.tree.map(lambda x: x[trajectory.mask].astype(np.float32), trajectory.steps)
    scores = zero_shot.reach_goals(env, agent, goals, seen, seed)
    env.close()
    box = list(env.env_spec.goal_box)
    return {"protocol": zero_shot.PROTOCOL, "num_goals": len(goals), "goal_box": box, **scores}


def report(run: Path | str, *, step: int | None = None, videos: bool = True) -> Path:
    """Write `<run>/report/index.html`: skills, curves, latents, goals, videos, config. Evaluates if nobody has.

    Args:
        step: which checkpoint; None is the newest.
        videos: render skills where a GL backend exists; where none does, the page says so.

    Returns:
        The page.
    """
    from urlrl.evaluation.report import ReportContent, write_report  # Imports matplotlib: training need not.

    enable_compilation_cache()
    folder = RunFolder(run)
    agent, config = load(run, step)
    step = folder.checkpoints.steps()[-1] if step is None else step
    try:
        evaluation = json.loads((folder.path / "evaluation.json").read_text())
    except (OSError, ValueError):
        evaluation = None
    if evaluation is None or evaluation["step"] != step:
        evaluation = evaluate(run, step=step)
    env = _make_env(config, 1)
    spec, model = env.env_spec, getattr(env, "model", None)
    env.close()
    trajectory = skill_episodes(agent, config, seed=evaluation["seed"])
    target = folder.path / "report"
    manifest = folder.manifest()
    content = ReportContent(
        title=f"{config.agent_name} on {config.env}, {step:,} steps, seed {config.seed}",
        config={**manifest["config"], "command": manifest["command"]},
        versions=manifest["versions"],
        spec=spec,
        trajectory=trajectory,
        latent=_latents(agent, trajectory),
        metrics=[row for row in read_metrics(folder.path / "metrics.jsonl") if row["step"] <= step],
        evaluation=evaluation,
        videos=_videos(model, spec, trajectory, target) if videos else "Videos were not asked for.",
        skill_kind=config.agent.z.kind,
    )
    return write_report(target, content)


def _latents(agent: Any, trajectory: Trajectory) -> np.ndarray | None:
    """phi along the episodes, (T + 1, n, d); None for an agent without one."""
    if not hasattr(agent, "latent"):
        return None
    obs = np.concatenate([trajectory.steps.obs[:1], trajectory.steps.next_obs]).astype(np.float32)
    return np.asarray(jax.jit(type(agent).latent)(agent, obs))


def _videos(model: Any, spec: EnvSpec, trajectory: Trajectory, folder: Path) -> list[Path] | str:
    if model is None or trajectory.physics is None:
        return f"Environment '{spec.id}' has no MuJoCo model to render: there are no videos."
    from urlrl.evaluation.video import MAX_TILES, render_videos

    sizes = dict(spec.physics)
    qpos = trajectory.physics[..., : sizes["qpos"]]
    lanes = np.linspace(0, qpos.shape[1] - 1, MAX_TILES).astype(int)  # Skills from all over the prior.
    labels = [f"skill {lane}" for lane in lanes]
    return render_videos(model, qpos[:, lanes], folder, fps=1 / (spec.control_dt or 1), labels=labels)


def skill_episodes(agent: Any, config: PretrainConfig, seed: int = 0) -> Trajectory:
    """The coverage protocol's 48 deterministic episodes, one skill each."""
    env = _make_env(config, coverage.EPISODES)
    z_key, act_key = jax.random.split(jax.random.key(seed))
    z = agent.config.z.spread(coverage.EPISODES, z_key)
    try:
        return coverage.skill_rollout(env, follow(agent, z, temperature=0.0), act_key, seed)
    finally:
        env.close()


def create_agent(config: PretrainConfig, spec: EnvSpec) -> Any:
    """An untrained agent of this config, from the config's seed."""
    agent_class, _ = find_agent(config.agent_name)
    example = example_transition(spec, config.agent.z.dim, 1)
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31)  # Apart from the keys of the epochs.
    return _create(agent_class, config.agent, example, key)


@partial(jax.jit, static_argnums=(0, 1))
def _create(agent_class: Any, config: Any, example: Transition, key: jax.Array) -> Any:
    return agent_class.create(config, example, key)


def _check_normalizer(config: PretrainConfig, spec: EnvSpec) -> None:
    if config.normalizer == "preset" and (spec.obs_mean is None or spec.obs_std is None):
        raise UserError(
            f"Environment '{config.env}' has no published normalisation constants: "
            f"expected --normalizer fit or --normalizer off."
        )


def make_normalizer(config: PretrainConfig, spec: EnvSpec, progress: Progress) -> Normalizer:
    """The frozen observation statistics that the config asks for."""
    if config.normalizer == "off":
        return Normalizer.identity(spec.obs_dim)
    if config.normalizer == "preset":
        return Normalizer(mean=jnp.float32(spec.obs_mean), std=jnp.float32(spec.obs_std))
    progress.note(f"Fitting the normaliser: {FIT_ROLLOUTS:,} random-action rollouts of {FIT_STEPS} steps.")
    env = _make_env(config, FIT_LANES)
    policy = uniform(spec.action_dim)
    count, total, squares = 0, np.zeros(spec.obs_dim), np.zeros(spec.obs_dim)
    for i in range(FIT_ROLLOUTS // FIT_LANES):
        seed = config.seed + 1 + i  # Each batch of rollouts from resets of its own.
        trajectory = rollout(env, policy, jax.random.key(seed), seed, FIT_STEPS)
        obs = trajectory.steps.next_obs[trajectory.mask]
        count, total, squares = count + len(obs), total + obs.sum(axis=0), squares + np.square(obs).sum(axis=0)
    env.close()
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std = np.where(std < 1e-6, 1.0, std)  # A coordinate that never moved is left as it is.
    return Normalizer(mean=jnp.float32(mean), std=jnp.float32(std))


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    found = {"python": sys.version.split()[0]}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found | {"backend": jax.default_backend()}


def enable_compilation_cache() -> None:
    """Keep compiled programs between processes, in `doctor.compilation_cache()`."""
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _make_env(config: PretrainConfig, num_envs: int) -> HostEnv:
    return make_env(config.env, num_envs, episode_steps=config.episode_steps, root_position=config.root_position)


def _spec(config: PretrainConfig) -> EnvSpec:
    env = _make_env(config, 1)
    env.close()
    return env.env_spec


def _coverage_metric(config: PretrainConfig, spec: EnvSpec) -> Callable[[Any, int], dict[str, float]] | None:
    """What is measured during training; None where the environment does not say where it is."""
    if not spec.position:
        return None
    env = _make_env(config, coverage.EPISODES)

    def measure(agent: Any, step: int) -> dict[str, float]:
        z_key, act_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), step))
        z = agent.config.z.spread(coverage.EPISODES, z_key)
        trajectory = coverage.skill_rollout(env, follow(agent, z, temperature=0.0), act_key, config.seed)
        return {"eval/coverage": float(coverage.coverage(coverage.visited(trajectory)))}

    return measure


def _announce(config: PretrainConfig, spec: EnvSpec, run: RunFolder) -> str:
    fields = transition_fields(spec, config.agent.z.dim)
    row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in fields.values())
    rows = config.steps if config.keep_data == "all" else min(config.steps, 2 * config.replay_capacity)
    lines = [
        f"Pretraining {config.agent_name} on {config.env}, seed {config.seed}, {config.steps:,} steps, in {run.path}.",
        f"Transitions: {row * min(config.steps, config.replay_capacity) / 2**20:,.0f} MiB in memory, "
        f"{row * rows / 2**20:,.0f} MiB on disk (keep_data={config.keep_data}).",
    ]
    if not spec.exact_resume:
        lines.append(
            f"Environment '{config.env}' cannot save its state: episodes are cut at each checkpoint, and a resumed run "
            f"begins new ones there."
        )
    if not spec.position:
        lines.append(f"Environment '{config.env}' does not say where it is: coverage is not measured.")
    return "\n".join(lines)
