"""What the server receives tells of nobody: masked vectors are uniform, and nothing else is there.

Contributions are the same in all sums, so what is uniform beside them depends on none of them.
Secrets come from the system, so that these tests draw anew each time. A bound is crossed by chance
in one of 10^9 runs.
"""

from pathlib import Path

import numpy as np

from pluralllm_app.secure_sum import keys
from pluralllm_app.secure_sum.fixed_point import Layout, Words
from pluralllm_app.secure_sum.memory import Secrets
from tests.support.secure_sums import Cohort, meant

MOST = 414.6  # chi-square with 255 degrees of freedom, exceeded with probability 1e-9
RUNS, LENGTH = 6, 4000


def chi_square(words: Words) -> list[float]:
    """Of each of the eight bytes of words, against the uniform distribution."""
    found = []
    for column in words.view(np.uint8).reshape(-1, 8).T:
        counts = np.bincount(column, minlength=256)
        expected = len(column) / 256
        found.append(float(((counts - expected) ** 2 / expected).sum()))
    return found


def contributions(cohort: Cohort) -> dict[str, Words]:
    """Vectors of few bits, as contributions are: they are nowhere near uniform."""
    layout = Layout.of({"share": (LENGTH - 1,)}, {"share": 1.0}, len(cohort.names))
    return {
        name: layout.encode({"share": np.full(LENGTH - 1, number / 8)})
        for number, name in enumerate(cohort.names)
    }


def test_masked_vectors_are_uniform_though_contributions_are_not(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, 3)
    vectors = contributions(cohort)
    assert max(chi_square(vectors["a"])) > 100 * MOST  # it would be seen
    ready = cohort.ready(count=RUNS)
    sent: dict[str, list[Words]] = {name: [] for name in cohort.names}
    for number in ready.invitation.numbers:
        for name in cohort.names:
            request = cohort.ask(ready, number, name)
            sent[name].append(cohort.half(name).mask(request, meant(number), vectors[name]))
    for name in cohort.names:
        assert max(chi_square(np.concatenate(sent[name]))) < MOST
        for first, second in zip(sent[name], sent[name][1:], strict=False):
            assert (first != second).all()  # no mask is used twice
    # Nor do the masks cancel between groups before a sum is opened.
    a, b, c = (np.concatenate(sent[name]) for name in cohort.names)
    for together in (a + b, a - b, a + b + c):
        assert max(chi_square(together)) < MOST


def test_what_all_but_two_know_leaves_the_two_uniform(tmp_path: Path) -> None:
    """t - 1 groups in league with the server take off what they know of the masks of the rest.

    Of the two that are left, what remains is uniform, and only its sum is that of their vectors.
    """
    cohort = Cohort(tmp_path, 5)
    league, rest = cohort.names[: cohort.threshold - 1], cohort.names[cohort.threshold - 1 :]
    assert (league, rest) == (("a", "b", "c"), ("d", "e"))
    vectors = contributions(cohort)
    ready = cohort.ready(count=RUNS)
    setup_context = ready.roll.context(ready.invitation)
    left: dict[str, list[Words]] = {name: [] for name in rest}
    public = {each.group: each.masks for each in ready.roll.advertisements}
    for number in ready.invitation.numbers:
        at = number - 1
        context = keys.sum_context(setup_context, number, meant(number).digest, LENGTH)
        secrets: dict[str, Secrets] = {}
        for name in cohort.names:
            setup = cohort.files[name].read().setup
            assert setup is not None
            secrets[name] = setup.secrets[number]
        total = np.zeros(LENGTH, np.uint64)
        for name in rest:
            request = cohort.ask(ready, number, name)
            vector = cohort.half(name).mask(request, meant(number), vectors[name])
            # b of all survivors is known once a sum is open; so are masks shared with the league.
            vector = vector - keys.self_mask(secrets[name].seed, context, name, LENGTH)
            for other in league:  # each comes before those of the rest, who subtracted the mask
                seed, invited = secrets[other].mask, ready.invitation.context
                private = keys.mask_key(seed, invited, number, other)
                names = (other, name)
                vector += keys.pair_mask(private, public[name][at], names, context, LENGTH)
            left[name].append(vector)
            total += vector
        assert (total == vectors["d"] + vectors["e"]).all()
    for name in rest:
        assert max(chi_square(np.concatenate(left[name]))) < MOST


def test_no_secret_of_a_group_is_in_what_the_server_receives(tmp_path: Path) -> None:
    """Of five groups, one is lost: then its mask key may be opened, and nobody's else."""
    cohort = Cohort(tmp_path, 5)
    ready, vectors = cohort.ready(), contributions(cohort)
    setups = {name: cohort.files[name].read().setup for name in cohort.names}
    before = b"".join(cohort.received)
    cohort.sum(ready, 1, vectors, masked="c")
    received = b"".join(cohort.received)
    for name, setup in setups.items():
        assert setup is not None
        assert setup.encryption not in received
        for number, each in setup.secrets.items():
            assert each.own is not None
            for secret in (each.mask, each.seed, each.own.mask, each.own.seed, each.own.piece):
                assert secret not in before
            assert each.mask not in received
            assert each.own.piece not in received
            assert (each.seed in received) == (number == 1 and name != "c")
            assert each.own.mask not in received  # no share of c's, which c alone holds, either
    for name in cohort.names:
        assert vectors[name][1:9].tobytes() not in received
