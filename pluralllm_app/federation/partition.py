"""The partition of a node: one group of a survey, and the answers of it that a run may use.

In simulation a node's partition id picks the group of the survey that the run config names; on a
machine of its own the node config names the site, see `survey.site`.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from flwr.app import Context

from pluralllm_app.core.wording import many
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.noise import usable_answers
from pluralllm_app.learning.base import MEMORIES
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import Group, PreparedSurvey
from pluralllm_app.survey.site import Site

NOISED = "learned-with-noise"


# A process serves many messages, in simulation of many groups: it opens the survey once, and reads
# each partition once.
@lru_cache(maxsize=1)
def open_survey(path: str) -> PreparedSurvey:
    """Open the survey at `path`, once in a process, and check it against its fingerprint."""
    survey = PreparedSurvey.open(path)
    survey.verify()
    return survey


@lru_cache(maxsize=1)
def open_site(path: str, group: str | None) -> Site:
    """Open and check the site of a group at `path`, once in a process."""
    return Site.open(path, group)


@lru_cache(maxsize=1024)
def _preferences(survey: PreparedSurvey, group: str) -> PreferenceSet:
    return survey.preferences(group)


@dataclass(frozen=True)
class Place:
    """What a node holds: one group of a survey, and a directory for its own memory."""

    survey: PreparedSurvey
    group: Group
    memory: Path
    node: Path | None  # the directory of a node of a deployment, see `node_files`

    def preferences(self, settings: Settings) -> PreferenceSet:
        """The group's answers for a run, see `noise.usable_answers`."""
        true = _preferences(self.survey, self.group.name)
        return usable_answers(self.survey, self.group, true, self.memory, self.node, settings)

    def learners_memory(self, settings: Settings) -> Path:
        """Where the learner of a run keeps what follows from these answers.

        Runs with noise for respondents have one of their own: a server names the memory that it
        wants used, and what runs without noise have left there follows from true answers.
        """
        return self.memory / NOISED if settings.federation.noise == "respondents" else self.memory


def locate(context: Context, settings: Settings) -> Place:
    """What this node holds, as its node config and, in simulation, the run config say."""
    node = context.node_config
    if "partition-id" not in node:
        if "site" not in node:
            raise FederationError(
                "this node has no site: write one with `pluralllm site create`, and start the "
                "node with the start.sh that `pluralllm deploy` made"
            )
        if "node" not in node:
            raise FederationError(
                "this node has no directory with a secret of its own, without which the server "
                "would know its draws: start it with the start.sh that `pluralllm deploy` made"
            )
        site = open_site(str(node["site"]), cast(str | None, node.get("group")))
        survey, group = site.survey, site.survey.group(site.group)
        return Place(survey, group, survey.path / "memory", Path(str(node["node"])))
    survey = open_survey(str(settings.path("survey")))
    nodes, groups = int(node["num-partitions"]), len(survey.groups)
    if nodes != groups:
        raise FederationError(
            f"survey has {many(groups, 'group')} but the federation has "
            f"{many(nodes, 'SuperNode')}: pass num-supernodes={groups}"
        )
    group = survey.groups[int(node["partition-id"])]
    return Place(survey, group, settings.path("out") / MEMORIES / Path(group.file).stem, None)
