"""The beginnings of the names of the environments that we ship, and where their makers are. Nothing is imported for the
table: `urlrl.loading` asks it which names are a user's own."""

from typing import NamedTuple


class Scheme(NamedTuple):
    """Environments whose names begin with `<key>:`. A maker is `module:name`, imported when asked for, and takes what
    follows the colon; on the host the number of copies; and the options of `urlrl.envs.make_env`."""

    names: str  # how they look
    host: str = ""  # makes a `HostEnv`; empty: what is made on the device is stepped on the host
    device: str = ""  # makes a `DeviceEnv`; empty: there is none
    takes_root: bool = False  # whether it has the option root_position
    wraps: bool = False  # whether others made what it names: it has the option on_nonfinite


SCHEMES = {
    "dmc": Scheme("dmc:<domain>_<task>", "urlrl.envs.dmc:DmcEnv", takes_root=True),
    "jaco": Scheme("jaco:<kind>_<corner>", "urlrl.envs.jaco:JacoEnv"),
    "maze": Scheme("maze:<layout>[_fixed][_mass][_cells]", "urlrl.envs.maze:MazeEnv", "urlrl.envs.maze:device_env"),
    "block": Scheme("block:<line>", device="urlrl.envs.block:device_env"),
    "mjx": Scheme("mjx:<body>", device="urlrl.envs.mjx:device_env", takes_root=True),
    "ogbench": Scheme("ogbench:<id>", "urlrl.envs.ogbench:OGBenchEnv"),
    "rooms": Scheme("rooms:<world>", device="urlrl.envs.rooms:device_env"),
    "tv": Scheme("tv:rooms[_quiet]", device="urlrl.envs.tv:device_env"),
    "gym": Scheme("gym:<id>", "urlrl.envs.gym:registered", wraps=True),
}
