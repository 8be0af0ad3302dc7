"""A saved predictor in use: from a group's answers, given as texts, to predicted answers."""

from pathlib import Path

import numpy as np

from pluralllm_app.core.parts import need
from pluralllm_app.core.segments import Floats, segment_rows
from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.card import Training, describe
from pluralllm_app.predictors.saved import load_predictor, load_questionnaire, load_training
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.records.reader import read_run
from pluralllm_app.survey.content import MOST_CHARACTERS
from pluralllm_app.survey.shared import TEXTS, About, Questionnaire
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.use.embedding import Texts
from pluralllm_app.use.group import Group
from pluralllm_app.use.matching import KnownAnswers, match_answers
from pluralllm_app.use.questions import Question
from pluralllm_app.use.reading import Answers, read_given
from pluralllm_app.use.survey import Survey


class Predictor:
    """A predictor with the questionnaire of its survey, to be used by texts.

    >>> predictor = Predictor.from_pretrained("runs/first")
    >>> group = predictor.group({"Is the economy in good shape?": {"Yes": 0.3, "No": 0.7}})
    >>> print(group.predict("Will your children be better off than you?"))
    """

    def __init__(
        self,
        model: ContextPredictor,
        questionnaire: Questionnaire,
        training: Training | None = None,
        embedder: str | None = None,
    ) -> None:
        """Put a predictor and the questionnaire of its survey together.

        Args:
            model: of any kind.
            questionnaire: of the survey that it was made with.
            training: how it was made, for its card.
            embedder: see `from_pretrained`.

        Raises:
            PredictorError: it was made with another survey.
        """
        self.questionnaire = questionnaire
        self.training = training
        self.texts = Texts(questionnaire.about, questionnaire.embeddings.shape[1], embedder)
        made_with = training.fingerprint if training else None
        if made_with not in (None, questionnaire.about.fingerprint):
            raise PredictorError(
                "the questionnaire is of another survey than the one that the predictor was made "
                f"with (fingerprints {questionnaire.about.fingerprint[:12]} and {made_with[:12]})"
            )
        try:
            beyond = model.beyond(questionnaire.question_set)
        except ValueError as error:
            raise PredictorError(f"the questionnaire is of another survey: {error}") from error
        self.model: ContextPredictor = model if beyond is None else beyond
        only = model.title if beyond is None else None
        self.survey = Survey(questionnaire, self.texts, only)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        questionnaire: str | Path | None = None,
        embedder: str | None = None,
    ) -> "Predictor":
        """Load a saved predictor of any kind.

        Args:
            source: a run directory, whose best predictor is taken; the directory of a saved
                predictor; or the name of a repository on the Hugging Face hub.
            questionnaire: a prepared survey, a questionnaire, or another saved predictor of the
                same survey, where none lies beside this one.
            embedder: name or directory of the survey's embedder, where the name that the survey
                has for it does not tell where it is. It is needed for new questions and for
                descriptions only, and loaded when the first one comes.

        Raises:
            PredictorError: there is none, its files are damaged, or it has no questionnaire.
            SurveyError: the questionnaire is damaged.
        """
        place = _best(source)
        model = load_predictor(place)
        found = _questionnaire(questionnaire) if questionnaire else load_questionnaire(place)
        if found is None:
            raise PredictorError(
                f"{place} has no {TEXTS}, so that questions cannot be named by their texts: give "
                "the prepared survey that it was trained on as `questionnaire`"
            )
        return cls(model, found, load_training(place), embedder)

    @property
    def about(self) -> About:
        """What the questionnaire says of itself: the survey, its licence, its embedder."""
        return self.questionnaire.about

    @property
    def questions(self) -> list[Question]:
        """The questions of the survey."""
        return self.survey.questions

    def card(self) -> dict[str, list[str]]:
        """What it was made from, how well it predicts, and its limits: lines under headings."""
        return describe(self.model, self.about, self.training)

    def group(
        self,
        answers: Answers | None = None,
        description: str | None = None,
        name: str = "the group",
        *,
        encoding: str | None = None,
        decimal: str | None = None,
    ) -> Group:
        """A group by what is known of it: some answers, a description, both, or nothing.

        Args:
            answers: {question: {option: share}}, with ids or texts of questions, and counts of
                people or percentages in place of shares; or records or a table of these, or a
                site, see `reading.read_given`. A question that the survey does not have is read as
                a new one, unless it is nearly one of the survey.
            description: a line that says who the group is, as "People in Japan".
            name: for messages and tables.
            encoding: of the text of a table, where that is not clear by itself, as "cp1252".
            decimal: "point" or "comma", where it is not clear which of them a table has.

        Returns:
            The group, whose `notes` say what was understood, as far as it is unusual.

        Raises:
            AnswersError: an answer is malformed, a question is misspelt or none is the survey's, or
                there is no answer and this kind needs one.
            PredictorError: a new question or the description cannot be embedded.
            SurveyError: a table cannot be read.
        """
        given = read_given(answers, Stated(encoding, decimal))
        known = match_answers(given, self.survey.catalogue)
        if len(known.questions) < self.model.least_context:
            raise AnswersError(
                f"{self.model.title}: this kind of predictor needs at least "
                f"{self.model.least_context} answer of the group"
            )
        vector = None if description is None else self._described(description)
        notes = list(known.notes)
        heeded = vector is not None and self.model.heeds_descriptions
        if vector is not None and not heeded:
            notes.append(
                "the description changes nothing: this predictor has learned nothing from "
                "descriptions"
            )
        if not known.questions:
            what = "what the description says" if heeded else "the average of all groups"
            notes.append(f"no answers were given: predictions rest on {what}")
        context = self._preferences(known, vector, name)
        return Group(self.model, self.survey, known, context, notes)

    def more(
        self,
        group: Group,
        answers: Answers,
        *,
        encoding: str | None = None,
        decimal: str | None = None,
    ) -> Group:
        """The same group with more answers, in any form that `group` takes.

        Raises:
            AnswersError: see `group`; or a question was answered before.
        """
        given = read_given(answers, Stated(encoding, decimal))
        known = group.known.plus(match_answers(given, self.survey.catalogue))
        context = self._preferences(known, group.context.description, group.name)
        return Group(self.model, self.survey, known, context, known.notes)

    def _preferences(
        self, known: KnownAnswers, description: Floats | None, name: str
    ) -> PreferenceSet:
        found = self.survey.rows(known.places, known.questions)
        order = np.argsort(found.questions, kind="stable")  # as in a site
        flat = segment_rows(found.starts[order], found.options[order])
        return PreferenceSet(
            group=name,
            embeddings=found.embeddings,
            questions=found.questions[order],
            first_rows=found.first_rows[order],
            options=found.options[order],
            shares=known.shares[flat].astype(np.float32),
            respondents=None if known.respondents is None else known.respondents[order],
            description=description,
        )

    def _described(self, description: str) -> Floats:
        if not isinstance(description, str):
            raise AnswersError(f"the description is {description!r}: give a text")
        text = " ".join(description.split())
        if not text:
            raise AnswersError("the description is empty: say who the group is, or give none")
        if len(text) > MOST_CHARACTERS:
            raise AnswersError(
                f"the description has {len(text):,} characters: shorten it to "
                f"{MOST_CHARACTERS:,}, which is a line or two"
            )
        return self.texts.description(text)


def _best(source: str | Path) -> str | Path:
    """The best predictor of a run directory; anything else as it is."""
    path = Path(source).expanduser()
    if not (path / "run.json").is_file():
        if path.is_dir():
            return path
        local = path.is_absolute() or path.exists() or str(source).count("/") > 1
        if local or (len(path.parts) > 1 and path.parent.is_dir()):
            raise PredictorError(
                f"{path} is no directory: give a run, a directory that a predictor was saved in, "
                "or the name of a repository"
            )
        return source
    for name in ("best", "model"):
        if (path / name).is_dir():
            return path / name
    run = read_run(path)
    if run is not None and run.status != "running":
        raise PredictorError(
            f"the run {path} {run.status} before it kept a predictor: give another"
        )
    raise PredictorError(
        f"the run {path} has kept no predictor yet: wait for its first evaluation, or give another "
        "run"
    )


def _questionnaire(place: str | Path) -> Questionnaire:
    path = Path(place).expanduser()
    found = load_questionnaire(_best(path)) if path.is_dir() else None
    if found is not None:
        return found
    need("survey", "reading a prepared survey")
    # Not at the top: prepared surveys are read with pyarrow.
    from pluralllm_app.survey.prepared import PreparedSurvey

    survey = PreparedSurvey.open(path)
    survey.verify()
    return survey.questionnaire()
