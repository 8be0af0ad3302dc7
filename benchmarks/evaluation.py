"""Evaluating a group: all targets of a context in one pass, against a pass for each question.

python benchmarks/evaluation.py data/globalopinionqa
"""

from pathlib import Path
from statistics import median

import numpy as np
from common_way import CommonGPO, evaluate
from measuring import count_flop, matrix_peak, paired, paper_settings, parse, publish, seconds

from pluralllm_app.learning.local_steps import initial_model
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.scoring.evaluation import evaluate as evaluate_group
from pluralllm_app.scoring.evaluation import evaluation_draws
from pluralllm_app.survey.prepared import PreparedSurvey


def main() -> None:
    arguments = parse(__doc__, lambda parser: parser.add_argument("survey", type=Path))
    survey = PreparedSurvey.open(arguments.survey)
    one_draw = paper_settings(**{"evaluation-draws": 1})
    settings = paper_settings()
    model = initial_model(survey.dim, settings)
    common, predictor = CommonGPO(model), GPOPredictor(model)
    group = max(survey.groups, key=lambda each: (each.role == "evaluation", each.questions))
    preferences = survey.preferences(group.name)
    context, target = evaluation_draws(
        preferences, "evaluation", settings.split, one_draw.evaluation
    )[0]

    def ours() -> np.ndarray:
        return evaluate_group(
            predictor, preferences, "evaluation", settings.split, one_draw.evaluation, survey.metric
        ).scores.scores

    def theirs() -> np.ndarray:
        return evaluate(common, preferences, context)

    difference = float(np.abs(ours() - theirs()).max())
    flop, peak = count_flop(ours), matrix_peak()
    mine, common_seconds, ratio = paired(ours, theirs, 15)

    def everything() -> None:
        for each in survey.groups:
            evaluate_group(
                predictor,
                survey.preferences(each.name),
                each.role,
                settings.split,
                settings.evaluation,
                survey.metric,
            )

    everything()
    publish(
        "evaluation",
        {
            "survey": survey.name,
            "dimensions of the embeddings": survey.dim,
            "group": group.name,
            "target questions": len(target),
            "largest difference of a score": difference,
            "ours, ms a question": 1e3 * mine / len(target),
            "common way, ms a question": 1e3 * common_seconds / len(target),
            "common way / ours": ratio,
            "GFLOP of the group on one context, ours": flop / 1e9,
            "GFLOP/s": flop / mine / 1e9,
            "GFLOP/s of a 512 x 512 product": peak / 1e9,
            "share of that": flop / mine / peak,
            "groups": len(survey.groups),
            "all groups, 3 contexts each, s": median(seconds(everything) for _ in range(5)),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
