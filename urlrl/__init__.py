"""Unsupervised reinforcement learning in JAX: pretrain without reward, then prompt, adapt and deploy.

Everything here is imported on first use, so that `import urlrl` costs milliseconds and does not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_PUBLIC = {
    "pretrain": "urlrl.verbs.pretrain",
    "pretrain_seeds": "urlrl.verbs.pretrain",
    "pretrain_each": "urlrl.verbs.seeds",
    "evaluate": "urlrl.verbs.evaluate",
    "compare": "urlrl.verbs.compare",
    "prompt": "urlrl.verbs.prompt",
    "adapt": "urlrl.verbs.adapt",
    "export": "urlrl.verbs.export",
    "report": "urlrl.verbs.report",
    "load": "urlrl.runs.load",
    "preset": "urlrl.presets",
    "make_env": "urlrl.envs",
    "trust": "urlrl.loading",
    "SkillPolicy": "urlrl.skills.policy",
    "AdaptConfig": "urlrl.adaptation.config",
    "PretrainConfig": "urlrl.config",
    "UnsupportedPrompt": "urlrl.errors",
    "UserError": "urlrl.errors",
    "GoalPrompt": "urlrl.types",
    "RewardPrompt": "urlrl.types",
    "DemoPrompt": "urlrl.types",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from urlrl.adaptation.config import AdaptConfig as AdaptConfig
    from urlrl.config import PretrainConfig as PretrainConfig
    from urlrl.envs import make_env as make_env
    from urlrl.errors import UnsupportedPrompt as UnsupportedPrompt
    from urlrl.errors import UserError as UserError
    from urlrl.loading import trust as trust
    from urlrl.presets import preset as preset
    from urlrl.runs.load import load as load
    from urlrl.skills.policy import SkillPolicy as SkillPolicy
    from urlrl.types import DemoPrompt as DemoPrompt
    from urlrl.types import GoalPrompt as GoalPrompt
    from urlrl.types import RewardPrompt as RewardPrompt
    from urlrl.verbs.adapt import adapt as adapt
    from urlrl.verbs.compare import compare as compare
    from urlrl.verbs.evaluate import evaluate as evaluate
    from urlrl.verbs.export import export as export
    from urlrl.verbs.pretrain import pretrain as pretrain
    from urlrl.verbs.pretrain import pretrain_seeds as pretrain_seeds
    from urlrl.verbs.prompt import prompt as prompt
    from urlrl.verbs.report import report as report
    from urlrl.verbs.seeds import pretrain_each as pretrain_each


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'urlrl' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
