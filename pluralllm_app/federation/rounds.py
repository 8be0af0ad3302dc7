"""The rounds of a run: choose groups, train, aggregate, evaluate, record."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from uuid import uuid4

from flwr.app import Message
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.federation import hooks
from pluralllm_app.federation.asking import round_messages
from pluralllm_app.federation.exchange import exchange
from pluralllm_app.federation.expected import Expected
from pluralllm_app.federation.fitting import check_number, known_survey
from pluralllm_app.federation.heard import Heard, causes, read_reply
from pluralllm_app.federation.lost_nodes import LostNodes
from pluralllm_app.federation.registration import Member, Registered
from pluralllm_app.federation.roster import build_roster
from pluralllm_app.federation.secure_counts import counted
from pluralllm_app.federation.secure_group import SECURE_SUM
from pluralllm_app.federation.secure_scores import ScoreSums
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.federation.state import RunState, rewind
from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.federation.weight_cap import capped
from pluralllm_app.learning.base import MEMORIES, Contribution, Contributions, Request, State
from pluralllm_app.learning.registry import Given, make_learner
from pluralllm_app.learning.sampling import chosen_groups
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.records.observers import BestModel, Checkpoints
from pluralllm_app.records.recording import Recording, recorded_run
from pluralllm_app.records.schema import RoundEntry, TrainEntry
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.questionnaire import read_questionnaire


def run_federation(
    grid: Grid,
    settings: Settings,
    config: Mapping[str, Scalar],
    progress: Callable[[str], None] = lambda line: None,
    members: Mapping[bytes, Member] | None = None,
) -> None:
    """Run a whole federation, or go on with one, and write its run directory at `settings.out`.

    Args:
        config: the run config the settings were read from, for the record.
        progress: called with a line for the log now and then.
        members: in a deployment, the registered groups by the public keys of their nodes.

    Raises:
        UserError: see `recording.recorded_run` and `build_roster`; to resume, other groups than
            before; fewer good updates in a round than the quorum; weights that are no longer
            finite. The run directory says so too.
    """
    out = settings.path("out")
    with recorded_run(out, "federated", config, resume=settings.resume) as record:
        every = settings.federation.checkpoint_every
        record.observers += [BestModel(record), Checkpoints(record, every)]
        Rounds(grid, settings, record, progress, members).run()
        shutil.rmtree(out / MEMORIES, ignore_errors=True)


class Rounds:
    """The rounds of a run, an exchange of messages each.

    The exchange that trains round n + 1 also evaluates the weights of round n, where that is due:
    groups that train score what they receive before they train it, the others are asked to.
    """

    def __init__(
        self,
        grid: Grid,
        settings: Settings,
        record: Recording,
        progress: Callable[[str], None],
        members: Mapping[bytes, Member] | None,
    ) -> None:
        self.grid = grid
        self.settings = settings
        self.record = record
        self.progress = progress
        strategy = make_strategy(settings)
        expected = settings.federation.expected_nodes or len(record.roster)
        start = time.perf_counter()
        registered = None if members is None else Registered(members, progress)
        place = settings.survey or settings.questionnaire
        known = known_survey(place) if registered else None
        try:
            self.roster = build_roster(grid, settings, expected, progress, registered, known)
        finally:
            if registered:
                record.update(refused=registered.refused)
        record.update(roster_seconds=round(time.perf_counter() - start, 3))
        if place:
            fingerprint = self.roster.survey.fingerprint
            record.questionnaire = read_questionnaire(place, fingerprint)
            check_number(self.roster.survey.survey_questions, record.questionnaire)
        described = self.roster.groups.values()
        groups = [(group.group, group.role, group.questions) for group in described]
        self.learner = make_learner(
            Given(
                settings,
                self.roster.survey.dim,
                self._questions,
                strategy=strategy,
                train_groups=len(self.roster.of_role("train")),
            )
        )
        if settings.resume:
            record.check_described(self.roster.survey, groups)
            self.state = rewind(record.path)
            progress(f"going on after round {self.state.round}")
        else:
            record.describe(self.roster.survey, groups)
            self.state = RunState(uuid4().hex, self.learner.initial_state())
            self._save()
        self._scored = self.roster.scored(settings)
        self._noise = GroupNoise.of(settings.federation)
        self._sums: SecureSums | None = None
        self._scores: ScoreSums | None = None
        self._quorum = settings.federation.min_train_groups
        state, summing = self.state, (grid, settings, self.roster)
        if settings.federation.privacy == SECURE_SUM:
            self._sums = SecureSums(*summing, state.experiment, state.sums, self._save, progress)
            self._quorum = self._sums.needed
            record.update(secure_threshold=self._sums.threshold)
        if settings.federation.scores == "mean":
            self._scores = ScoreSums(*summing, state, self._save, progress)
        self._expected = Expected(self.roster, settings, self._sums, self._scores)

    def _questions(self) -> QuestionSet:
        """All questions of the survey, for a learner that needs them."""
        if self.record.questionnaire is None:
            raise FederationError(
                "this server has no questions, which it needs to learn factors: give "
                "questionnaire, a directory that `pluralllm questionnaire` wrote"
            )
        return self.record.questionnaire.question_set

    def run(self) -> None:
        """Run all rounds; round 0 is the evaluation of the untrained predictor."""
        federation = self.settings.federation
        train_groups = self.roster.of_role("train")
        if self._sums and self.state.round == 0:
            self.state.learner = counted(self._sums, self.learner, self.state)
            self._save()
        while (number := self.state.round) < federation.rounds and not self._settled():
            trained = chosen_groups(train_groups, self.settings, number + 1)
            due = number % self.settings.evaluation.evaluate_every == 0
            self._exchange(trained, self._scored if due else [])
            self.record.trained(self.state.round, self._predictor)
            self._save()
        self._exchange([], self._scored)
        self.record.save_model("model", self._predictor(), self.record.last_round)

    def _settled(self) -> bool:
        """Whether the run ends before its last round, since its score no longer changes."""
        settled = self.learner.settled(self.state.learner)
        if settled:
            self.record.update(ended_by="score")
        return settled

    def _predictor(self) -> ContextPredictor:
        """What the current state predicts."""
        return self.learner.predictor(self.state.learner.sent)

    def _save(self) -> None:
        self.record.save_state(self.state.pack())

    def _exchange(self, trained: list[str], scored: list[str]) -> None:
        """Score the current state on groups, record their round, and learn the next one.

        Where the quorum is lost to nodes that went away, all of it is done again once they are
        back: what the first try has given is thrown away.
        """
        heard = Heard(time.perf_counter())
        federation, nodes = self.settings.federation, self.roster.nodes
        lost_nodes = LostNodes(self.grid, federation, nodes, self.record, self.progress)
        try:
            state, failure = self._tried(trained, scored, heard)
            while trained and lost_nodes.come_back(self.state.round + 1, heard, self._fewest):
                heard = Heard(heard.since)
                state, failure = self._tried(trained, scored, heard)
            self._close_round(heard, last=not trained)
            if trained:
                heard.check_quorum(self.state.round + 1, self._quorum, self.settings)
                if failure or state is None:
                    raise failure or AssertionError("nothing was combined")
                self._begin_round(state, heard)
        except BaseException:  # the round that ends the run is recorded as well
            entry = self._timed(time.perf_counter() - heard.since)
            self.record.close_round(entry, self._predictor)
            raise

    def _tried(
        self, trained: list[str], scored: list[str], heard: Heard
    ) -> tuple[State | None, Exception | None]:
        """Send a round's messages and hear all replies; the next state, or why there is none."""
        state, failure = None, None
        if trained and self._sums:
            trained, failure = self._begin_sum(heard)
        if scored and self._scores:
            scored = self._scores.begin(self.state.learner.sent, self.state.round, heard)
        contributions = self._contributions(trained, scored, heard)
        if trained:
            state, failure = self._combined(contributions, trained, heard)
        for _ in contributions:  # those that were not looked at are heard and checked too
            pass
        if not heard.all_replies:
            raise failure or AssertionError("the replies ended early")
        for missed in [*heard.missed, *heard.lost]:
            self.progress(f"{missed.phase}: {missed.group} failed: {missed.reason}")
        return state, failure

    def _begin_sum(self, heard: Heard) -> tuple[list[str], Exception | None]:
        """The groups of the next secure sum; none, and why there are none."""
        assert self._sums, "else nothing is summed securely"
        sent, number = self.state.learner.sent, self.state.round + 1
        form = hooks.sent_form(self.learner.form(sent))
        request = Request(number, False, self.state.experiment, 0, self.learner.options())
        try:
            left = self.settings.federation.rounds - self.state.round
            return self._sums.begin(form, sent, request, left, heard), None
        except FederationError as error:
            return [], error

    @property
    def _fewest(self) -> int:
        """Fewer groups than these end a round."""
        return self._sums.fewest if self._sums else self._quorum

    def _timed(self, seconds: float) -> RoundEntry:
        """The current round's entry, which took so many seconds more."""
        entry = self.state.entry
        return replace(entry, seconds=round(entry.seconds + seconds, 3))

    def _combined(
        self, contributions: Iterator[Contribution], trained: list[str], heard: Heard
    ) -> tuple[State | None, Exception | None]:
        """The next state, or why there is none: the round before is recorded in any case."""
        number, before = self.state.round + 1, self.state.learner
        # Not the generator itself: whoever stops early could close it.
        handed: Iterator[Contribution] = chain(contributions)
        try:
            if self._sums:
                handed = self._sums.opened(handed, heard)
            opened: Contributions = hooks.at_server(before.sent, handed)
            if self.learner.form(before.sent).weighs and not self._sums:  # where groups did
                weights = [self.roster.weight(name, self.settings) for name in trained]
                cap = self.settings.federation.weight_cap
                opened = capped(opened, weights, cap, self._note_cap)
            return self.learner.combine(number, before, opened), None
        except Exception as error:
            return None, error

    def _note_cap(self, before: float, after: float) -> None:
        cap = self.settings.federation.weight_cap
        self.progress(
            f"round {self.state.round + 1}: weight-cap = {cap:g} lowers the largest weight from "
            f"{before:g} to {after:g}"
        )

    def _contributions(
        self, trained: list[str], scored: list[str], heard: Heard
    ) -> Iterator[Contribution]:
        """Send a round's messages; yield the good contributions in the order of `trained`.

        They come one by one, so that whoever adds them up holds one at a time. All else that the
        replies say goes to `heard`.
        """
        form = hooks.sent_form(self.learner.form(self.state.learner.sent))
        update_of = partial(
            self._expected.update, self._sums.form if self._sums and trained else form
        )
        to_score, to_train = set(scored), set(trained)
        for name, reply in self._ask(trained, scored, heard):
            if name in to_score:
                evaluation = read_reply(
                    "evaluate", name, reply, self._expected.evaluation, heard.missed
                )
                if evaluation:
                    heard.scored(name, evaluation)
            if name in to_train:
                update = read_reply("train", name, reply, update_of, heard.lost)
                if update:
                    heard.note(name, update)
                    yield replace(
                        update.contribution, weight=self.roster.weight(name, self.settings)
                    )
        heard.all_replies = True

    def _ask(
        self, trained: list[str], scored: list[str], heard: Heard
    ) -> Iterator[tuple[str, Message | str]]:
        """Send a message to each group; yield its reply, or why there is none, in that order."""
        messages = round_messages(
            *(self.roster, self.state, self.learner.options(), trained, scored),
            *(self._sums, self._scores),
        )
        names, timeout = self.roster.names, self.settings.federation.round_timeout
        for node, reply in exchange(self.grid, messages, timeout):
            yield names[node], heard.reply_of(names[node], reply)

    def _close_round(self, heard: Heard, last: bool) -> None:
        """Record the round of the current state; keep its predictor as `best` if it is."""
        number = self.state.round
        result = self._expected.result(heard)
        seconds = heard.scoring_share() * (time.perf_counter() - heard.since)
        failures = [*self.state.entry.failures, *heard.missed]
        self.state.entry = replace(self._timed(seconds), failures=failures, evaluation=result)
        if heard.missed and not result and (last or number == 0 or not self._scores):
            missed = causes(heard.missed)
            raise FederationError(f"round {number}: no group could be scored: {missed}")
        entry = self.state.entry
        self.record.append_round(entry)
        self.state.entry = RoundEntry(round=number + 1, failures=heard.lost)
        heard.since += seconds
        self.record.recorded(entry, self._predictor)

    def _begin_round(self, state: State, heard: Heard) -> None:
        """Take the combined state as that of the next round."""
        steps, tasks = self.learner.work(self.state.learner.sent, len(heard.trained))
        self.state.learner = state
        self.state.round += 1
        self.state.counted |= dict.fromkeys(heard.trained, self.state.round)
        seconds = round(time.perf_counter() - heard.since, 3)
        train = TrainEntry(
            loss=heard.loss(),
            steps=steps,
            tasks=tasks,
            groups=heard.trained,
            seconds=seconds,
            secure_sum=self._sums.entry() if self._sums else None,
            epsilon=self._spent(),
        )
        self.state.entry = replace(self.state.entry, seconds=seconds, train=train)

    def _spent(self) -> float | None:
        """The epsilon of noise so far: that for groups costs something in every round."""
        if self._noise:
            return self._noise.spent(self.state.round)
        return noise.epsilon if (noise := self.record.info.noise) else None
