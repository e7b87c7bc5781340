"""Environments by name: a key of `ENVS`, a name of one of `SCHEMES`, or a user's `module:function`; after one of ours a
plus and distractors (envs/distractors.py)."""

from typing import Any

from urlrl.errors import UserError, check_choice, unknown
from urlrl.loading import load_object
from urlrl.schemes import SCHEMES
from urlrl.types import DeviceEnv, HostEnv

# name -> what makes it of num_envs and episode_steps; imported when asked for.
ENVS = {
    "ant": "urlrl.envs.locomotion:ant",
    "half_cheetah": "urlrl.envs.locomotion:half_cheetah",
    "half_cheetah_hurdle": "urlrl.envs.locomotion:half_cheetah_hurdle",
    "ogbench:ant": "urlrl.envs.locomotion:ogbench_ant",
    "point": "urlrl.envs.point:PointEnv",
    "point_mass_maze": "urlrl.envs.point_mass:PointMassMazeEnv",
}


def make_env(
    name: str,
    num_envs: int = 1,
    *,
    episode_steps: int | None = None,
    root_position: bool = False,
    on_nonfinite: str = "stop",
) -> HostEnv:
    """`num_envs` copies of an environment, stepped together.

    Args:
        name: a key of `ENVS`, a name of one of `SCHEMES`, or `module:function` where the function takes nothing and
            returns a `gymnasium.Env`. One of the first two may end with distractors, as in `dmc:walker_walk+noise10`.
        episode_steps: another time limit, in control steps; None keeps the environment's own.
        root_position: put the root's position in front of the observation (`dmc:` and `mjx:` only: their observations
            lack it, and METRA's phi can only cover what it sees).
        on_nonfinite: "end" ends an episode where the environment returns what is not finite (`gym:` and
            `module:function` only); "stop" is an error.

    Raises:
        UserError: no such environment, or its spaces are not flat boxes.
    """
    check_choice("on_nonfinite", on_nonfinite, ("stop", "end"))
    if "+" in name:
        from urlrl.envs.distractors import DistractedEnv, parts

        name, more = parts(name)
        options: dict[str, Any] = {"root_position": root_position, "on_nonfinite": on_nonfinite}
        return DistractedEnv(make_env(name, num_envs, episode_steps=episode_steps, **options), more)
    start, colon, rest = name.partition(":")
    scheme = SCHEMES.get(start) if colon and name not in ENVS else None
    if root_position and not (scheme and scheme.takes_root):
        raise UserError(f"Environment '{name}' has no option root_position: expected a dmc: or a mjx: environment.")
    if on_nonfinite != "stop" and (name in ENVS or (scheme and not scheme.wraps)):
        raise UserError(f"Environment '{name}' has no option on_nonfinite: expected a gym: environment or your own.")
    if name in ENVS:
        return load_object(ENVS[name], "environment")(num_envs=num_envs, episode_steps=episode_steps)
    if scheme and scheme.host:
        own: dict[str, Any] = {"root_position": root_position} if scheme.takes_root else {}
        own |= {"on_nonfinite": on_nonfinite} if scheme.wraps else {}
        return load_object(scheme.host, "environment")(rest, num_envs, episode_steps=episode_steps, **own)
    if scheme:
        from urlrl.envs.on_device import DeviceHostEnv

        device = make_device_env(name, episode_steps=episode_steps, root_position=root_position)
        return DeviceHostEnv(device, num_envs)
    from urlrl.envs.gym import GymEnv, find_maker, near_ids

    if not rest:
        names = [*ENVS, *(each.names for each in SCHEMES.values()), "module:function", *near_ids(name)]
        raise unknown("environment", name, names)

    return GymEnv(name, find_maker(name), num_envs, episode_steps, on_nonfinite)


def make_device_env(name: str, *, episode_steps: int | None = None, root_position: bool = False) -> DeviceEnv:
    """An environment as pure JAX functions, of a name and with the options that `make_env` knows.

    Raises:
        UserError: it has none; the message names those that have.
    """
    if "+" in name:
        from urlrl.envs.distractors import distracted, parts

        name, more = parts(name)
        return distracted(make_device_env(name, episode_steps=episode_steps, root_position=root_position), more)
    if name == "point":
        from urlrl.envs import point

        return point.device_env(episode_steps)
    start, _, rest = name.partition(":")
    scheme = SCHEMES.get(start)
    if scheme and scheme.device:
        root = {"root_position": root_position} if scheme.takes_root else {}
        return load_object(scheme.device, "environment")(rest, episode_steps=episode_steps, **root)
    from urlrl.envs import mjx, mjx_dmc

    schemes = [each.names for key, each in SCHEMES.items() if each.device and key != "mjx"]
    names = ["point", *schemes, *mjx.BODIES, *mjx_dmc.TASKS]
    raise UserError(f"Environment '{name}' has no device version: expected {', '.join(names[:-1])} or {names[-1]}.")


def device_name(name: str) -> str:
    """What an environment is called on the device, if it is there: by its own name, or as a body of `mjx:`."""
    scheme = SCHEMES.get(name.partition(":")[0])
    there = name.partition("+")[0] == "point" or (scheme and scheme.device)
    return name if there else f"mjx:{name.removeprefix('dmc:')}"


def twin_of(name: str) -> str | None:
    """The environment with these observations and dynamics in C MuJoCo, of one in another simulator: `EnvSpec.twin`."""
    if not name.startswith("mjx:"):
        return None
    from urlrl.envs import mjx_dmc

    body, plus, distractors = name.partition("+")
    twin = mjx_dmc.twin(body) if body in mjx_dmc.TASKS else body.removeprefix("mjx:")
    return f"{twin}{plus}{distractors}"
