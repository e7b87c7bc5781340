"""A control loop in plain MuJoCo that performs a skill of a bundle: no JAX, no training library.

    python scripts/drive_skill.py bundles/half_cheetah --skill forward
    python scripts/drive_skill.py bundles/half_cheetah --goal 10

It needs numpy, safetensors, mujoco, the models that Gymnasium ships, and one file of urlrl, which can be copied.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np

from urlrl.skills.policy import SkillError, SkillPolicy

MODELS = {"ant": "ant.xml", "half_cheetah": "half_cheetah.xml"}  # environment of a bundle -> file of Gymnasium


def load_model(env: str) -> mujoco.MjModel:
    assets = Path(find_spec("gymnasium").origin).parent / "envs" / "mujoco" / "assets"
    return mujoco.MjModel.from_xml_path(str(assets / MODELS[env]))


def drive(policy: SkillPolicy, skill: str | None, goal: list[float] | None, steps: int) -> np.ndarray:
    """The path (steps + 1, p) under one skill, or toward a goal position with a new aim at every control step."""
    if policy.config["env"] not in MODELS:
        raise SkillError(f"The bundle is for '{policy.config['env']}': expected one of {', '.join(MODELS)}.")
    model = load_model(policy.config["env"])
    data = mujoco.MjData(model)
    substeps = round(policy.config["control_dt"] / model.opt.timestep)
    names = policy.config["goal"]["names"]
    if goal and len(goal) != len(names):
        raise SkillError(f"The goal is {goal}: expected {len(names)} numbers, {', '.join(names)}.")
    target = policy.goal(**dict(zip(names, goal))) if goal else None
    path = [data.qpos[: len(names)].copy()]
    for _ in range(steps):
        obs = np.concatenate([data.qpos, data.qvel])
        z = policy.aim(target, obs) if goal else skill
        data.ctrl[:] = policy.scale(policy.act(obs, z))
        mujoco.mj_step(model, data, substeps)
        path.append(data.qpos[: len(names)].copy())
    return np.array(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="folder, or hub id, of a bundle for ant or half_cheetah")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--skill", help="a named skill of the bundle")
    what.add_argument("--goal", type=float, nargs="+", metavar="M", help="position to go to, one number per coordinate")
    parser.add_argument("--steps", type=int, default=200, help="control steps")
    options = parser.parse_args()
    try:
        policy = SkillPolicy.from_pretrained(options.bundle)
        path = drive(policy, options.skill, options.goal, options.steps)
    except SkillError as error:
        parser.error(str(error))
    seconds = options.steps * policy.config["control_dt"]
    moved = ", ".join(f"{name} {x:+.2f} m" for name, x in zip(policy.config["goal"]["names"], path[-1] - path[0]))
    print(f"{options.skill or 'to the goal'}: {moved} in {seconds:g} s")
    if options.goal:
        distance = np.linalg.norm(path - options.goal, axis=1)
        print(f"distance to the goal: {distance[-1]:.2f} m at the end, {distance.min():.2f} m at its closest")


if __name__ == "__main__":
    main()
