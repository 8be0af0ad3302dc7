"""What a secure sum is of: a digest of all that shapes the vectors, which the masks hold.

A group computes it from what it was told itself, and the server from what it told. One that tells
groups different things, to read one's numbers out of the total, gets masks that do not cancel.
"""

from dataclasses import asdict
from hashlib import sha256

from pluralllm_app.federation.summands import Summands
from pluralllm_app.learning.base import Request
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.secure_sum.keys import packed
from pluralllm_app.secure_sum.messages import Meaning
from pluralllm_app.settings import NO_RESULT, SECTIONS, Settings


def counts_request(experiment: str) -> Request:
    """What stands for a request where counts are summed, before the first round of a run."""
    return Request(round=0, evaluate=False, experiment=experiment, counted=0)


def meaning_of(settings: Settings, request: Request, sent: Arrays, summands: Summands) -> Meaning:
    """What a sum is of.

    Two parts of a request are left out, in which groups differ honestly: whether they score as
    well, and which of their rounds counted last.

    Args:
        settings: of the run.
        request: what every group is asked.
        sent: what every group is sent.
        summands: what each vector looks like.
    """
    shaping = [
        (name, key, value)
        for name in SECTIONS
        for key, value in asdict(getattr(settings, name)).items()
        if key.replace("_", "-") not in NO_RESULT
    ]
    arrays = [
        (name, sent[name].dtype.str, sent[name].shape, sha256(sent[name].tobytes()).digest())
        for name in sorted(sent)
    ]
    fields = [(name, each.shape, each.bits) for name, each in summands.layout.fields.items()]
    content = packed(
        "meaning",
        *(request.experiment, request.round, sorted(request.options.items())),
        *(shaping, sorted(settings.strategy_options.items())),
        *(arrays, fields, summands.form.weighs),
    )
    return Meaning(request.round, sha256(content).digest(), alike=not summands.form.weighs)
