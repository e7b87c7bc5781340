"""Skill bundles in NumPy beside onnxruntime on the same networks: actions, features and skills for rewards.

`python scripts/benchmarks/benchmark.py --parts start bundle --out docs/results/benchmark-bundle.json`

`ant` is the bundle that ships, two layers of 256. FB has random weights and the paper's widths, and the sizes of
dm_control's walker: 24 observations, 6 actions, z of 50. Each library has one thread, so NumPy's is a new process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from benchmark_common import Contender, interleave, load_average, load_of, show, spread
from rich.table import Table

from urlrl.agents.fb import FBConfig
from urlrl.config import PretrainConfig
from urlrl.envs import make_env
from urlrl.evaluation.rollout import acting, rollout
from urlrl.runs.begin import create_agent
from urlrl.skills.export import Seen, make_policy
from urlrl.skills.formats import onnx_aim, onnx_skill
from urlrl.skills.policy import SkillPolicy
from urlrl.types import Transition

ENV = "dmc:walker_walk"


def make_fb(width: int, num_rows: int) -> SkillPolicy:
    """Untrained, with random transitions to be told rewards on."""
    rng, nothing = np.random.default_rng(0), np.zeros(num_rows, np.float32)
    config = PretrainConfig(agent=FBConfig(width=width, backward_width=width // 2), agent_name="fb", env=ENV)
    with closing(make_env(ENV, 2)) as env:
        agent = create_agent(config, env.env_spec)
        obs, next_obs = rng.normal(size=(2, num_rows, env.env_spec.obs_dim)).astype(np.float32)
        action = rng.uniform(-1, 1, (num_rows, env.env_spec.action_dim)).astype(np.float32)
        seen = Seen(Transition(obs, action, nothing, nothing, next_obs, nothing[:, None]), {})
        episodes = rollout(env, acting(agent), jax.random.key(0), 0, 2)
        return make_policy(agent, env, episodes, jax.random.key(1), {}, seen=seen)[0]


def in_onnxruntime(graph: Callable[[], bytes], inputs: dict[str, np.ndarray]) -> Callable[[], Any] | None:
    """With one thread; None where onnxruntime is not installed."""
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph(), options, providers=["CPUExecutionProvider"])
    except ImportError:
        return None
    return partial(session.run, None, inputs)


def compare(
    what: str, numpy: Callable, onnx: Callable | None, calls: int, repeats: int, seconds: float
) -> dict[str, Any]:
    """Microseconds per call of two functions without arguments; `onnx` may be None. Measurements of so many `calls` are
    short, so that other work on the machine interrupts few of them."""
    load, functions = load_average(), {"numpy": numpy} | ({"onnxruntime": onnx} if onnx else {})

    def several(function: Callable) -> Contender:
        return Contender(lambda: [function() for _ in range(calls)])

    times = interleave({name: several(function) for name, function in functions.items()}, repeats, seconds)
    ratio = spread(times["numpy"] / times["onnxruntime"], "ratio, by round") if onnx else None
    figures = {name: spread(1e6 * spent / calls, "us") for name, spent in times.items()}
    return {"what": what, **figures, "numpy_over_onnxruntime": ratio, "load_average": [load, load_average()]}


def measure_alone(repeats: int, seconds: float, width: int, num_rows: int) -> list[dict[str, Any]]:
    """In this process, however many threads it has."""
    rng, fb = np.random.default_rng(0), make_fb(width, num_rows)
    comparisons: list[tuple[str, Callable, Callable | None, int]] = []
    for name, policy, calls in (("ant, 2 x 256", SkillPolicy.from_pretrained("ant"), 20), (f"FB, {width:,}", fb, 1)):
        obs = rng.normal(size=policy.config["observation"]["size"]).astype(np.float32)
        (z,) = policy.sample(rng, 1)
        onnx = in_onnxruntime(partial(onnx_skill, policy), {"obs": obs[None], "z": z[None]})
        comparisons.append((f"action, {name}", partial(policy.act, obs, z), onnx, calls))
    goal, reward = fb.transitions.next_obs, rng.normal(size=num_rows).astype(np.float32)
    onnx = in_onnxruntime(partial(onnx_aim, fb), {"goal": goal, "obs": goal})
    comparisons.append((f"B of {num_rows:,} rows", partial(fb.aim, goal, goal[0]), onnx, 1))
    comparisons.append((f"z for a reward on {num_rows:,} rows", partial(fb.prompt, reward=reward), None, 20))
    return [compare(*comparison, repeats, seconds) for comparison in comparisons]


def measure(repeats: int, seconds: float, width: int, num_rows: int) -> list[dict[str, Any]]:
    """A row for each comparison, measured in a new process with one thread."""
    sizes = [str(size) for size in (repeats, seconds, width, num_rows)]
    one = {**os.environ, **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")}
    done = subprocess.run([sys.executable, str(Path(__file__)), *sizes], env=one, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict[str, Any]]) -> Table:
    digits = {"numpy": 1, "onnxruntime": 1, "numpy_over_onnxruntime": 2}
    out = Table("what", *digits, "load", title="Bundles with one thread, microseconds, median (quartiles)")
    for row in rows:
        figures = [show(row[name], places) if row.get(name) else "" for name, places in digits.items()]
        out.add_row(row["what"], *figures, load_of(row))
    return out


if __name__ == "__main__":
    print(json.dumps(measure_alone(*map(json.loads, sys.argv[1:]))))
