"""Prompting a pretrained agent: with a reward, a goal or a demonstration of one's own."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from urlrl.config import MAX_SEED
from urlrl.data.demo import checked_demo, read_demo
from urlrl.data.rows import relabelled
from urlrl.errors import UserError, check
from urlrl.evaluation import figures, prompting
from urlrl.evaluation.figures import OverTime
from urlrl.evaluation.prompting import EPISODES, Episodes
from urlrl.evaluation.rollout import play, play_random, play_zero
from urlrl.evaluation.zero_shot import goal_metrics
from urlrl.files import check_folder_of, write_atomically, write_json
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import Loaded, load_checkpoint
from urlrl.runs.past import check_physics, past_to_label, seen_of
from urlrl.runtime import enable_compilation_cache
from urlrl.streams import env_seed, stream
from urlrl.tasks.expressions import parse
from urlrl.tasks.features import Feature, evaluate, features
from urlrl.training.run import RunFolder
from urlrl.types import DemoPrompt, GoalPrompt, HostEnv, need

SAMPLES = 5120  # labelled transitions that a reward prompt shows


class Asked(NamedTuple):
    """One run, and the lanes that act it out."""

    run: Path
    loaded: Loaded
    env: HostEnv
    samples: int
    seed: int


class Outcome(NamedTuple):
    """What came of a prompt."""

    words: str  # the prompt, as a user would write it
    result: dict[str, Any]
    episodes: Episodes
    over_time: OverTime | None
    goal: np.ndarray | None = None  # (p,)
    demo: np.ndarray | None = None  # (t, p)


def prompt(
    run: Path | str,
    reward: str | None = None,
    *,
    goal: Mapping[str, float] | None = None,
    demo: Path | str | np.ndarray | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    step: int | None = None,
    out: Path | str | None = None,
    video: Path | str | None = None,
    json_file: Path | str | None = None,
) -> dict[str, Any]:
    """Ask a run's agent for something, watch 16 episodes of it beside the random policy's, and write what came of it.

    Args:
        reward: an expression of `list_features(run)`, as in "vx * upright - 0.1 * energy".
        goal: metres by coordinate.
        demo: observations (T, obs) of one episode, or a .safetensors, .npy or .csv file of them.
        samples: how many of the run's transitions the agent is shown, labelled with the reward; others are held out
            from it.
        seed: of the samples, resets and random actions.
        step: which checkpoint; None is the newest that is whole.
        out: folder of `result.json` and `trajectory.png`; None is `<run>/prompts/<name>`.
        video: also render the first episode to this .mp4 or .webp file.
        json_file: also write the result there.

    Returns:
        What `result.json` holds: {"run", "step", "seed", "env", "kind", "prompt", "z": the skill of the first episode
        at its start, "notes", "files"}, and what was measured (`urlrl.evaluation.prompting`).

    Raises:
        UnsupportedPrompt: the agent cannot be asked this.
        UserError: not exactly one of reward, goal and demo, or one that does not fit the run; nothing was written.
    """
    video, json_file = (None if file is None else Path(file) for file in (video, json_file))
    _check_outputs(video, json_file)
    check("seed", seed, 0, MAX_SEED)
    check("samples", samples, 2)
    given = [name for name, value in (("reward", reward), ("goal", goal), ("demo", demo)) if value is not None]
    if len(given) != 1:
        raise UserError(f"The prompt is {' and '.join(given) or 'missing'}: expected one reward, goal or demo.")
    enable_compilation_cache()
    loaded = load_checkpoint(run, step)
    with closing(make_run_env(loaded.config, EPISODES)) as env:
        asked = Asked(Path(run), loaded, env, samples, seed)
        env.reset(seed=env_seed(seed, "prompt, shown"))
        if reward is not None:
            outcome = _ask_reward(asked, reward)
        elif goal is not None:
            outcome = _ask_goal(asked, goal)
        elif isinstance(demo, np.ndarray):
            outcome = _ask_demo(asked, demo, "the demonstration")
        elif demo is not None:
            outcome = _ask_demo(asked, read_demo(Path(demo)), f"demonstration {demo}")
        model = getattr(env, "model", None)
    folder = RunFolder(run).path / "prompts" / _slug(outcome.words) if out is None else Path(out)
    return _write(asked, outcome, folder, model, video, json_file)


def list_features(run: Path | str) -> dict[str, Feature]:
    """What a reward for a run's agent can be made of, by name."""
    return features(RunFolder(run).manifest()["config"]["env"])


# The three prompts.


def _ask_reward(asked: Asked, text: str) -> Outcome:
    known = features(asked.loaded.config.env)
    expression = parse(text, known)
    chosen = [known[name] for name in expression.names]
    rows = past_to_label(asked.run, asked.loaded, prompting.labelled_count(asked.samples), asked.seed)
    check_physics(rows, asked.run)

    def reward(physics: np.ndarray, action: np.ndarray) -> np.ndarray:
        return expression(dict(zip(expression.names, evaluate(chosen, physics, action))))

    labels = reward(rows["next_physics"], rows["action"].astype(np.float64))
    seen = relabelled(rows, labels)
    task, fit = prompting.read_reward(asked.loaded.agent, seen, asked.samples, asked.seed)
    episodes = _watch(asked, task)
    measured = prompting.return_metrics(asked.loaded.agent, task, episodes, reward, seen, asked.seed)
    along = OverTime("reward per control step", *(prompting.rewards_along(played, reward) for played in episodes[:2]))
    return Outcome(text.strip(), {"kind": "reward", "fit": fit, **measured}, episodes, along)


def _ask_goal(asked: Asked, goal: Mapping[str, float]) -> Outcome:
    asked.env.goal_obs(np.zeros((1, len(asked.loaded.spec.position))))  # Says so where there are no goals.
    position = prompting.goal_position(goal, asked.loaded.spec.position)
    obs = asked.env.goal_obs(position[None])[0].astype(np.float32)
    episodes = _follow(asked, GoalPrompt(obs))
    along = OverTime("distance to the goal (m)", *(prompting.distances(played, position) for played in episodes[:2]))
    goals = np.broadcast_to(position, (EPISODES, len(position)))
    result = {
        "kind": "goal",
        "goal": position.tolist(),
        **{who: goal_metrics(played, goals) for who, played in episodes.by_name.items()},
    }
    words = ",".join(f"{name}={value:g}" for name, value in zip(asked.loaded.spec.position, position))
    return Outcome(words, result, episodes, along, goal=position)


def _ask_demo(asked: Asked, obs: np.ndarray, words: str) -> Outcome:
    spec = asked.loaded.spec
    obs = checked_demo(obs, words, spec.obs_dim)
    episodes = _follow(asked, DemoPrompt(obs))
    words += f" ({hashlib.sha256(obs.tobytes()).hexdigest()[:8]})"
    result: dict[str, Any] = {"kind": "demo", "demo_steps": len(obs) - 1, "agent": None, "random": None}
    columns = prompting.position_columns(asked.env) if spec.goal_box else []
    if not columns:
        note = f"The observation of '{spec.id}' does not show where it is: nothing says how close the path is."
        return Outcome(words, {**result, "notes": [note]}, episodes, None)
    path = obs[:, columns].astype(np.float64)
    result |= {who: prompting.demo_metrics(played, path) for who, played in episodes.by_name.items()}
    apart = (prompting.distances_to_demo(played, path) for played in episodes[:2])
    assert episodes.agent.position is not None
    shifted = path - path[0] + episodes.agent.position[0].mean(axis=0)  # Each path is seen from its own start.
    return Outcome(words, result, episodes, OverTime("distance to the demonstration (m)", *apart), demo=shifted)


def _follow(asked: Asked, told: GoalPrompt | DemoPrompt) -> Episodes:
    agent = asked.loaded.agent
    seen = seen_of(asked.run, asked.loaded, agent, asked.samples, asked.seed)
    if seen is None:  # A run may go without its transitions.
        random = play_random(asked.env, asked.seed)
        seen = jax.tree.map(lambda column: column[random.mask].astype(np.float32), random.steps)
    need(agent, "told")
    return _watch(asked, agent.read(told, seen, stream(asked.seed, "prompt, read")))


def _watch(asked: Asked, task: Any) -> Episodes:
    env, seed = asked.env, asked.seed
    zero = None if env.env_spec.action == "onehot" else play_zero(env, seed)
    return Episodes(play(env, asked.loaded.agent, task, seed), play_random(env, seed), zero)


# What is written.


def _check_outputs(video: Path | None, json_file: Path | None) -> None:
    """Refuse at the start what could not be written in the end."""
    if video is not None:
        from urlrl.evaluation.video import check_video

        check_video(video)
    check_folder_of(json_file)


def _slug(words: str) -> str:
    """A folder's name that says the prompt, and differs where prompts do: `vx - 1` is not `vx + 1`."""
    readable = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40].rstrip("-")
    return f"{readable}-{hashlib.sha256(words.encode()).hexdigest()[:6]}"


def _write(
    asked: Asked, outcome: Outcome, folder: Path, model: Any, video: Path | None, json_file: Path | None
) -> dict[str, Any]:
    loaded = asked.loaded
    notes = [loaded.note] if loaded.note else []
    notes += outcome.result.pop("notes", [])
    picture = _picture(outcome, loaded) if loaded.spec.position or outcome.over_time else None
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "result.json"]
    if picture:
        write_atomically(folder / "trajectory.png", picture)
        files.append(folder / "trajectory.png")
    if video is not None:
        if failure := _render(model, outcome, loaded, video):
            notes.append(failure)
        else:
            files.append(video)
    result = {
        "run": str(asked.run),
        "step": loaded.step,
        "seed": asked.seed,
        "env": loaded.config.env,
        "prompt": outcome.words,
        **outcome.result,
        "z_kind": loaded.config.agent.z.kind,
        "z": np.asarray(outcome.episodes.agent.steps.z[0, 0], np.float64).tolist(),
        "episodes": EPISODES,
        "notes": notes,
        "files": [str(file) for file in files],
    }
    write_json(result, folder / "result.json", json_file, indent=2)
    return result


def _picture(outcome: Outcome, loaded: Loaded) -> bytes:
    agent, random, _ = outcome.episodes
    figure = figures.draw_prompt(
        agent, random, loaded.spec, outcome.over_time, figures.LIGHT, goal=outcome.goal, demo=outcome.demo
    )
    return figures.png(figure)


def _render(model: Any, outcome: Outcome, loaded: Loaded, path: Path) -> str | None:
    """Render the first episode; returns None, or the sentence that says why there is no video."""
    physics, spec = outcome.episodes.agent.physics, loaded.spec
    if model is None or physics is None:
        return f"Environment '{spec.id}' has no MuJoCo model to render: there is no video."
    from urlrl.evaluation.video import render_video

    end = int(outcome.episodes.agent.mask[:, 0].sum()) + 1
    qpos = physics[:end, :1, : dict(spec.physics)["qpos"]]
    return render_video(model, qpos, path, fps=1 / (spec.control_dt or 1), labels=[outcome.words[:60]])
