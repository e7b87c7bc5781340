"""The model card of a skill bundle: what a stranger needs to know before they use it."""

import json
from typing import Any

from urlrl.skills.policy import SkillPolicy

LOAD = """\
```python
from urlrl.skills.policy import SkillPolicy  # one file that needs NumPy and safetensors; a copy does as well

policy = SkillPolicy.from_pretrained("path/to/this/folder")
action = policy.act(obs, {z})  # obs ({obs},) or (n, {obs}) -> actions in [-1, 1]
ctrl = policy.scale(action)  # in actuator units
{aim}{control}```"""
CONTROL = """\

from urlrl.skills.policy import SkillController

controller = SkillController(policy)  # it chooses the skills; controller.reset() where an episode begins
ctrl = controller.scale(controller.act(inputs))  # inputs ({size},): obs{features}
"""
AIM = "z = policy.aim({goal}, obs)  # the skill that leads there from here; aim anew at every step\n"


def make_card(policy: SkillPolicy, evaluation: dict[str, Any] | None) -> str:
    """README.md of a bundle whose provenance is that of `urlrl.verbs.export`; evaluation is of the same checkpoint."""
    config = policy.config
    origin = config["provenance"]
    known = origin["config"].get("env") or config["env"]
    title = f"{origin['agent']} skills for {config['env']}"
    if "task" in origin:
        title = f"{origin['task']}, by {origin['method']} of {origin['agent']}"
    parts = [
        _front_matter(origin["agent"], config["env"]),
        f"# {title}",
        f"{_origin(origin, known)}The policy is deterministic, keeps nothing between calls and has its normalisation "
        "inside.",
        "## Use",
        _usage(policy),
        "## Contract",
        _contract(config),
    ]
    if config["skills"]:
        parts += ["## Named skills", _skills(config["skills"], origin)]
    if evaluation is not None:
        parts += ["## Scores", _scores(evaluation)]
    parts += ["## How it was made", _making(origin)]
    return "\n\n".join(parts) + "\n"


def _origin(origin: dict[str, Any], env: str) -> str:
    """Where it comes from, and what it takes beside the observation."""
    pretrained = (
        f"A policy that {origin['agent']} pretrained on `{env}` without any reward, for {origin['step']:,} steps. "
    )
    takes = "Beside the observation it takes a skill z. "
    if (task := origin.get("task")) is None:
        return pretrained + takes
    if origin["method"] in ("zero_shot", "z_search"):
        return f"{pretrained}{takes}The skill `{task}` was found for that task by {origin['method']}. "
    trained = (
        f"on the reward of the task `{task}` for {origin['task_steps']:,} control steps (seed {origin['task_seed']}). "
    )
    if origin["method"] == "hierarchical":
        return f"{pretrained}{takes}Then a controller that chooses the skill was trained {trained}"
    if origin["method"] == "scratch":
        return f"A policy that was trained from scratch {trained}"
    return f"{pretrained}Then it was fine-tuned {trained}"


def _front_matter(agent: str, env: str) -> str:
    tags = ["reinforcement-learning", "unsupervised-reinforcement-learning", "skill-discovery", agent, env]
    lines = ["---", "library_name: urlrl", "pipeline_tag: reinforcement-learning", "tags:"]
    return "\n".join([*lines, *(f"- {json.dumps(tag)}" for tag in tags), "---"])


def _usage(policy: SkillPolicy) -> str:
    z = json.dumps(next(iter(policy.skills))) if policy.skills else "policy.sample(rng, 1)[0]"
    if policy.config["skill"]["kind"] == "none":
        z = "()"
    place = policy.config["goal"]
    goal = f"policy.goal({', '.join(f'{name}=1.0' for name in place['names'])})" if place else "goal_obs"
    aim = AIM.format(goal=goal) if policy.config["prompting"]["goal"] else ""
    size, control = policy.config["observation"]["size"], ""
    if about := policy.config.get("controller"):
        features = about["features"]
        control = CONTROL.format(size=size + len(features), features="".join(f", {name}" for name in features))
    return LOAD.format(z=z, obs=size, aim=aim, control=control)


def _contract(config: dict[str, Any]) -> str:
    dt, skill, action = config["control_dt"], config["skill"], config["action"]
    priors = {
        "sphere": "unit vectors",
        "wide_sphere": "vectors of length sqrt(d)",
        "gaussian": "standard normal vectors",
        "onehot": "one-hot vectors",
    }
    rows = [
        ("control step", "not stated by the environment" if dt is None else f"{dt:g} s"),
        ("skills z", f"{priors[skill['kind']]} of {skill['dim']} numbers" if skill["dim"] else "none"),
        ("can be told", ", ".join(f"a {kind}" for kind, rule in config["prompting"].items() if rule) or "nothing"),
    ]
    if about := config.get("controller"):
        seen = ", ".join(["the observation", *(f"`{name}`" for name in about["features"])])
        rows.append(("controller", f"sees {seen}; chooses a skill every {about['hold']} control steps"))
    entries = [(str(i), f"`{name}`") for i, name in enumerate(config["observation"]["names"])]
    actuators = [
        (str(i), f"`{name}`", f"{low:g}", f"{high:g}")
        for i, (name, low, high) in enumerate(zip(action["names"], action["low"], action["high"]))
    ]
    return "\n\n".join(
        [
            _table(("", ""), rows),
            "Observation, in the environment's own units, not normalised:",
            _table(("entry", "name"), entries),
            "Action, and what -1 and 1 are in actuator units:",
            _table(("entry", "actuator", "-1 is", "1 is"), actuators),
        ]
    )


def _skills(skills: dict[str, Any], origin: dict[str, Any]) -> str:
    def moved(displacement: dict[str, float] | None) -> str:
        if displacement is None:
            return "not measured"
        return ", ".join(f"{name} {value:+.1f}" for name, value in displacement.items())

    rows = [(f"`{name}`", moved(skill["displacement"])) for name, skill in skills.items()]
    text = (
        f"Where the skill led within an episode, from start to end, in the environment's unit of length (mean over the "
        f"episodes with it, deterministic, evaluation seed {origin['evaluation_seed']}). A direction names the skill "
        f"that went farthest that way, of those that went nearer to it than to another; it is missing without one."
    )
    return f"{text}\n\n{_table(('skill', 'displacement'), rows)}"


def _scores(evaluation: dict[str, Any]) -> str:
    parts = []
    if coverage := evaluation.get("coverage"):
        rows = [(f"coverage, {coverage['unit']}", coverage["agent"], coverage["random"])]
        parts.append(
            f"`{coverage['protocol']}`, {coverage['episodes']} episodes, evaluation seed {evaluation['seed']}:"
        )
        parts.append(_table(("", "this agent", "random policy"), rows))
    if goals := evaluation.get("goals"):
        # An evaluation by an older version has no one standing still.
        who = {"agent": "this agent", "random": "random policy", "standing still": "standing still"}
        who = {name: shown for name, shown in who.items() if name in goals}
        scores = [(_label(score), *(f"{goals[name][score]:.3f}" for name in who)) for score in goals["agent"]]
        parts.append(f"`{goals['protocol']}`, {goals['num_goals']} goals, evaluation seed {evaluation['seed']}:")
        parts.append(_table(("", *who.values()), scores))
    parts.append("One training seed: a score of this bundle, not of the method.")
    return "\n\n".join(parts)


def _label(metric: str) -> str:
    """What a goal metric is, with its unit."""
    kind, _, radius = metric.partition("_")
    meaning = {"hit": "goals reached", "end": "goals held at the end", "at": "share of the steps at the goal"}
    return f"{meaning[kind]}, within {radius} m" if kind in meaning else f"{kind} goal distance, m"


def _making(origin: dict[str, Any]) -> str:
    commands = "\n".join(filter(None, origin["commands"]))
    command = f"```\n{commands}\n```\n\n" if commands else ""
    note = f"{origin['note']}\n\n" if origin["note"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    config = json.dumps(origin["config"], indent=1)
    return f"{command}{note}Trained with {versions}. The whole configuration:\n\n```json\n{config}\n```"


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
