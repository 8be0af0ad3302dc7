"""A survey whose groups' answers are all in one place, to be trained on and scored together."""

from collections.abc import Mapping
from dataclasses import dataclass

from pluralllm_app.predictors.base import Baseline, ContextPredictor
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.scoring.evaluation import GroupEvaluation, evaluate
from pluralllm_app.scoring.results import EvaluationResult, summarise
from pluralllm_app.settings import Settings, SplitSettings
from pluralllm_app.survey.prepared import PreparedSurvey


@dataclass(frozen=True)
class PooledSurvey:
    """The answers and the role of every group of a survey."""

    preferences: Mapping[str, PreferenceSet]
    roles: Mapping[str, str]
    metric: str
    dim: int  # of the embeddings

    @classmethod
    def read(cls, survey: PreparedSurvey) -> "PooledSurvey":
        """Read the answers of every group of a survey."""
        preferences = {group.name: survey.preferences(group.name) for group in survey.groups}
        roles = {group.name: group.role for group in survey.groups}
        return cls(preferences, roles, survey.metric, survey.dim)

    def of_role(self, role: str) -> list[str]:
        """Names of the groups of one role, sorted."""
        return sorted(name for name, has in self.roles.items() if has == role)

    def fit(self, baseline: type[Baseline], split: SplitSettings) -> Baseline:
        """Fit a baseline on the answers that a federated run trains on.

        No held-out or reserved question is among them.
        """
        train = [self.preferences[group] for group in self.of_role("train")]
        return baseline.fit(
            [group.select(split_questions(group, "train", split).train) for group in train]
        )

    def score(self, predictor: ContextPredictor, name: str, settings: Settings) -> GroupEvaluation:
        """Score a predictor on one group."""
        return evaluate(
            predictor,
            self.preferences[name],
            self.roles[name],
            settings.split,
            settings.evaluation,
            self.metric,
        )

    def score_all(self, predictor: ContextPredictor, settings: Settings) -> EvaluationResult:
        """Score a predictor on every group."""
        evaluations = {name: self.score(predictor, name, settings) for name in self.roles}
        return summarise(evaluations, self.roles, settings.split)
