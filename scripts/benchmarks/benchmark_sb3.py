"""Milliseconds per gradient step of Stable-Baselines3's SAC on the CPU (extra `bench`), to set ours beside."""

import importlib.util
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from benchmark_common import Contender, interleave, load_average, spread

from urlrl.runtime import usable_cores

SEED = 0


def installed() -> bool:
    return importlib.util.find_spec("stable_baselines3") is not None


def measure_width(
    width: int, obs: int, action: int, batch: int, updates: int, repeats: int, seconds: float
) -> dict[str, Any]:
    """SAC learning from noise: `obs` counts the skill too. With U = 2 batch width^2 it needs 16 of METRA's 24 U."""
    import torch
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    torch.set_num_threads(usable_cores())
    env: gymnasium.Env = gymnasium.Env()  # Never stepped: SAC only asks for its spaces.
    env.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs,), np.float32)
    env.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action,), np.float32)
    model = SAC(
        "MlpPolicy", env, learning_rate=1e-4, buffer_size=10 * batch, batch_size=batch, seed=SEED, device="cpu",
        policy_kwargs={"net_arch": [width, width]},
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))
    rng = np.random.default_rng(SEED)
    for _ in range(10 * batch):
        before, after = rng.standard_normal((2, 1, obs)).astype(np.float32)
        acted = rng.uniform(-1, 1, (1, action)).astype(np.float32)
        model.replay_buffer.add(before, after, acted, np.zeros(1), np.zeros(1), [{}])
    load = load_average()
    run = Contender(lambda: model.train(gradient_steps=updates, batch_size=batch))
    ms = 1e3 * interleave({"sac": run}, repeats, seconds)["sac"] / updates
    return {
        "width": width, "updates_per_call": updates, "seed": SEED, "load_average": [load, load_average()],
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("stable-baselines3", "torch")},
        "sac": spread(ms, "ms per gradient step"),
    }  # fmt: skip
