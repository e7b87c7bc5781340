"""Stable-Baselines3 on the skills of a bundle, and on the raw actions of the same task (extra `bench`).

python scripts/skill_env_sb3.py bundles/half_cheetah --out results/skill-env-sb3
python scripts/skill_env_sb3.py bundles/half_cheetah --learners off_policy --k 10 --out results/skill-env-sb3-off-policy

On-policy is PPO for both. Off-policy is DQN on skills, which must be indices, and SAC on raw actions.
"""

import json
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import gymnasium
import numpy as np
import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tyro.conf import Positional

from urlrl.evaluation.stats import area, over_seeds
from urlrl.skills.env import SkillEnv
from urlrl.skills.policy import SkillPolicy
from urlrl.tasks.single import make_single

COPIES = 8  # environments stepped together
# Both learn from two episodes per copy: of 8 options each, or of 200 raw actions. The rest is Stable-Baselines3's own.
ROLLOUT_STEPS = 400
PPO_OPTIONS = {"gae_lambda": 0.95, "n_epochs": 10, "ent_coef": 0.01, "batch_size": 64}
LR = {"skills": 1e-3, "raw": 3e-4}  # skills: 25 times fewer minibatches
GAMMA = {"skills": 0.9, "raw": 0.99}  # per decision: of 25 control steps, and of one
OFF_POLICY = {  # a gradient step per decision of a skill, and per 8 raw actions
    "skills": {
        "learning_rate": 5e-4, "learning_starts": 200, "batch_size": 128, "gradient_steps": 8,
        "target_update_interval": 500, "exploration_fraction": 0.5, "exploration_final_eps": 0.1,
        "policy_kwargs": {"net_arch": [128, 128]},
    },
    "raw": {"learning_starts": 4_000, "batch_size": 256, "gradient_steps": 1},
}  # fmt: skip
COLORS = {"skills": "#2266ac", "raw": "#b3343a"}
LABELS = {
    "on_policy": {"skills": "PPO on SkillEnv", "raw": "PPO on raw actions"},
    "off_policy": {"skills": "DQN on SkillEnv", "raw": "SAC on raw actions"},
}
EVALUATION_SEED = 1_000_000  # evaluation episode i of seed s starts from 1,000,000 (s + 1) + i


@dataclass(frozen=True)
class Options:
    """Both agents, every seed, with the same control steps and the same evaluation episodes."""

    bundle: Positional[str]  # folder or hub id
    out: Path  # writes OUT.json and OUT.png
    learners: Literal["on_policy", "off_policy"] = "on_policy"
    task: str = "half_cheetah_approach"
    k: int = 25  # control steps per skill
    steps: int = 200_000  # control steps of each run; evaluations are not counted
    eval_every: int = 10_000  # control steps
    eval_episodes: int = 48  # deterministic
    seeds: int = 5


class Evaluator(BaseCallback):
    """Counts control steps, notes (control steps, returns) every `eval_every` of them, and stops at `steps`."""

    def __init__(self, env: DummyVecEnv, options: Options, seed: int):
        super().__init__()
        self.env, self.options, self.seed = env, options, seed
        self.taken, self.curve = 0, []

    def _on_training_start(self) -> None:
        self._measure()

    def _on_step(self) -> bool:
        self.taken += sum(info.get("control_steps", 1) for info in self.locals["infos"])
        if self.taken >= len(self.curve) * self.options.eval_every:
            self._measure()
        return self.taken < self.options.steps

    def _measure(self) -> None:
        self.env.seed(EVALUATION_SEED * (self.seed + 1))
        obs, total = self.env.reset(), np.zeros(self.env.num_envs)
        alive = np.ones(self.env.num_envs, bool)
        while alive.any():
            action, _ = self.model.predict(self.training_env.normalize_obs(obs), deterministic=True)
            obs, reward, done, _ = self.env.step(action)
            total[alive] += reward[alive]
            alive &= ~done
        self.curve.append((self.taken, total.tolist()))


def make_model(kind: str, on_policy: bool, env: VecNormalize, n_steps: int, seed: int) -> BaseAlgorithm:
    both = {"env": env, "gamma": GAMMA[kind], "seed": seed, "device": "cpu"}
    if on_policy:
        return PPO("MlpPolicy", n_steps=n_steps, learning_rate=LR[kind], **both, **PPO_OPTIONS)
    learner = DQN if kind == "skills" else SAC
    return learner("MlpPolicy", train_freq=1, **both, **OFF_POLICY[kind])


def train(kind: str, seed: int, policy: SkillPolicy, options: Options) -> dict:
    """The curve of one agent with one seed."""

    def make() -> gymnasium.Env:
        env = make_single(options.task)
        return SkillEnv(env, policy, options.k) if kind == "skills" else env

    start = time.perf_counter()
    evaluator = Evaluator(DummyVecEnv([make] * options.eval_episodes), options, seed)
    on_policy = options.learners == "on_policy"
    env = VecNormalize(DummyVecEnv([make] * COPIES), gamma=GAMMA[kind], norm_reward=on_policy)
    per_decision = options.k if kind == "skills" else 1
    model = make_model(kind, on_policy, env, ROLLOUT_STEPS // per_decision, seed)
    model.learn(options.steps // per_decision + COPIES, callback=evaluator)
    env.close()
    evaluator.env.close()
    steps, returns = zip(*evaluator.curve)
    means = np.mean(returns, axis=1)
    return {
        "kind": kind, "seed": seed, "steps": steps, "returns": returns, "final": float(means[-1]),
        "area": area(steps, means, options.steps), "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def draw(runs: list[dict], labels: dict[str, str], path: Path) -> None:
    """What the seeds come to, with its interval, and each seed thin."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, color in COLORS.items():
        steps = next(run["steps"] for run in runs if run["kind"] == kind)
        lines = np.stack([np.mean(run["returns"], axis=1) for run in runs if run["kind"] == kind])
        mean, low, high = zip(*(over_seeds([column]) for column in lines.T))
        axes.plot(steps, lines.T, color=color, linewidth=0.6, alpha=0.4)
        axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(steps, mean, color=color, linewidth=2, label=f"{labels[kind]} ({len(lines)} seeds)")
    axes.set(xlabel="control steps in the task", ylabel="return", xlim=(0, steps[-1]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    torch.set_num_threads(1)  # Faster for networks this small.
    policy = SkillPolicy.from_pretrained(options.bundle)
    runs = []
    for seed in range(options.seeds):
        for kind in COLORS:
            runs.append(train(kind, seed, policy, options))
            print("{kind} {seed}: area {area:.1f}, final return {final:.1f}, {seconds} s".format(**runs[-1]))
    areas = {kind: np.array([run["area"] for run in runs if run["kind"] == kind]) for kind in COLORS}
    difference = over_seeds([areas["skills"] - areas["raw"]])
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": {name: version(name) for name in ("urlrl", "stable-baselines3", "torch", "gymnasium", "mujoco")},
        "options": asdict(options) | {"out": options.out.name},
        "off_policy": OFF_POLICY,
        "ppo": PPO_OPTIONS | {"lr": LR, "gamma": GAMMA, "copies": COPIES, "rollout_control_steps": ROLLOUT_STEPS},
        "bundle": policy.config["provenance"],
        "area_difference": [float(x) if np.isfinite(x) else None for x in difference],
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    draw(runs, LABELS[options.learners], options.out.with_suffix(".png"))
    for seed, (skills, raw) in enumerate(zip(areas["skills"], areas["raw"])):
        print(f"seed {seed}: area {skills:.1f} on skills, {raw:.1f} on raw actions, difference {skills - raw:+.1f}")
    print(f"difference: {difference.text(1)}")


if __name__ == "__main__":
    main(tyro.cli(Options))
