"""Settings of RND, which makes data."""

from urlrl.agents.rnd import RNDConfig
from urlrl.presets.common import HOURS, MINUTES, QUICK, Preset, making_data
from urlrl.types import BatchSpec

_RND_QUICK = RNDConfig(width=256, lr=3e-4, outputs=64, batch=BatchSpec(size=256))

PRESETS = {
    "urlb": Preset(
        making_data(RNDConfig(), "rnd", "dmc:walker_walk", 2_000_000, 2),
        "URLB (github.com/rll-research/url_benchmark), with one-step returns",
        HOURS,
    ),
    "walker-quick": Preset(making_data(_RND_QUICK, "rnd", "dmc:walker_walk", 1_000_000, 10), QUICK, MINUTES),
    "cheetah-quick": Preset(making_data(_RND_QUICK, "rnd", "dmc:cheetah_run", 1_000_000, 10), QUICK, MINUTES),
}  # fmt: skip
