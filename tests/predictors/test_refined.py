"""A network on top of factors: neutral at first, and nothing where there is no context."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pluralllm_app.errors import PredictorError
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.refined.network import distances, neutral_network
from pluralllm_app.predictors.refined.predictor import RefinedPredictor
from pluralllm_app.predictors.refined.rows import look_each
from pluralllm_app.predictors.saved import load_predictor, save_predictor
from pluralllm_app.scoring.metrics import alignment
from tests.predictors.test_saved import GROUPS, make

GROUP = GROUPS[0]
HALF = len(GROUP) // 2
CONTEXT, TARGET = GROUP.select(np.arange(HALF)), GROUP.ask(np.arange(HALF, len(GROUP)))
NOTHING = GROUP.select(np.arange(0))


def factors() -> FactorsPredictor:
    predictor = make("factors")
    assert isinstance(predictor, FactorsPredictor)
    return predictor


def network() -> GPO:
    torch.manual_seed(0)
    return neutral_network(3, d_model=8, num_layers=1)


def test_an_untrained_network_changes_nothing() -> None:
    ours = RefinedPredictor(factors(), network()).predict(CONTEXT, TARGET)
    theirs = factors().predict(CONTEXT, TARGET)
    for name, value in vars(theirs).items():
        np.testing.assert_allclose(vars(ours)[name], value, rtol=1e-12, err_msg=name)


def test_the_same_correction_of_all_options_changes_nothing() -> None:
    """What is corrected is the logarithm of a share, and the shares of a question sum to 1."""
    changed = network()
    with torch.no_grad():
        changed.predictor[-1].bias.copy_(torch.tensor([3.0, 2.0]))  # of all rows alike
    ours = RefinedPredictor(factors(), changed).predict(CONTEXT, TARGET)
    np.testing.assert_allclose(ours.shares, factors().predict(CONTEXT, TARGET).shares, rtol=1e-6)


def test_the_loss_is_the_distance_that_is_scored() -> None:
    rng = np.random.default_rng(0)
    options = np.array([2, 3, 4])
    predicted, true = (
        np.concatenate([rng.dirichlet(np.ones(count)) for count in options]) for _ in range(2)
    )
    true[:2] = [0, 1]
    tensors = [torch.from_numpy(each).requires_grad_() for each in (predicted, true)]
    found = distances(*tensors, torch.from_numpy(options))
    wanted = 1 - alignment("jensen-shannon", predicted, true, options)
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-4)
    found.sum().backward()
    assert bool(tensors[0].grad.isfinite().all())


def test_intervals_and_deviations_move_with_their_shares() -> None:
    predictor = make("refined")
    assert isinstance(predictor, RefinedPredictor)
    ours, theirs = predictor.predict(CONTEXT, TARGET), predictor.factors.predict(CONTEXT, TARGET)
    assert ours.intervals is not None
    assert theirs.intervals is not None
    low, high = ours.intervals.transpose(1, 0, 2)
    assert (low <= ours.shares).all()
    assert (ours.shares <= high).all()
    assert ours.deviation is not None
    assert theirs.deviation is not None
    ratio, before = ours.deviation / ours.shares, theirs.deviation / theirs.shares
    pair = np.repeat(TARGET.options == 2, TARGET.options)
    np.testing.assert_allclose(ratio[~pair], before[~pair])
    # Of two options, one says what the other does.
    np.testing.assert_array_equal(ours.deviation[pair][::2], ours.deviation[pair][1::2])


def test_without_an_answer_factors_predict_alone() -> None:
    predictor = make("refined")
    ours, theirs = predictor.predict(NOTHING, TARGET), factors().predict(NOTHING, TARGET)
    assert (ours.shares == theirs.shares).all()
    both = predictor.predict_each([(NOTHING, TARGET), (CONTEXT, TARGET)])
    assert (both[0].shares == theirs.shares).all()
    assert (both[1].shares == predictor.predict(CONTEXT, TARGET).shares).all()


def test_the_network_does_not_see_the_answers_it_predicts() -> None:
    """A target is seen as factors predict it; a context row with how far its answer was off."""
    positions = np.arange(HALF, len(GROUP))
    (asked,) = look_each(factors(), [(CONTEXT, TARGET)])
    (given,) = look_each(factors(), [(CONTEXT, GROUP.select(positions))])
    assert (asked.features == given.features).all()
    assert (asked.shares == given.shares).all()
    rows = len(CONTEXT.shares)
    assert (asked.shares[:rows] == CONTEXT.shares).all()
    assert asked.features[:rows, 4].any()
    assert not asked.features[rows:, 4].any()
    assert asked.features[:, 5].tolist() == [0.0] * rows + [1.0] * (len(asked.shares) - rows)


def test_parts_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    save_predictor(make("refined"), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    other = tmp_path / "other"
    save_predictor(RefinedPredictor(factors(), GPO(3, d_model=8, num_layers=1)), other)
    with pytest.raises(PredictorError, match=r"reads rows of 3 numbers, .* have 3 \+ 6"):
        load_predictor(other)
    good = load_file(weights)
    save_file(good | {"factors.mean": good["factors.mean"] * np.nan}, weights)
    with pytest.raises(PredictorError, match=r"factors\.mean is not all finite"):
        load_predictor(tmp_path)
    save_file(good, weights)
    described = json.loads(config.read_text())
    config.write_text(json.dumps({name: described[name] for name in ("kind", "factors")}))
    with pytest.raises(PredictorError, match="describes no predictor of kind 'refined': 'network'"):
        load_predictor(tmp_path)
