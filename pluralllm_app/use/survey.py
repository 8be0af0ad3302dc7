"""The questions of a survey, and new ones beside them, as texts and as predictors see them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pluralllm_app.core.segments import segment_starts
from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.survey.shared import Questionnaire
from pluralllm_app.use.embedding import Texts
from pluralllm_app.use.questions import Catalogue, Question, named

Asked = str | Question | Sequence[str | Question]


@dataclass(frozen=True, eq=False)
class Located:
    """Questions that were asked for, as texts and as predictors see them."""

    questions: Sequence[Question]
    known: Sequence[bool]  # whether each is one of the survey
    rows: QuestionSet


class Survey:
    """What a predictor in use knows of its survey, and how new questions are added."""

    def __init__(self, questionnaire: Questionnaire, texts: Texts, only: str | None) -> None:
        """Prepare to find questions.

        Args:
            questionnaire: of the survey.
            texts: embeds new questions.
            only: the kind of the predictor where it knows no new questions, for messages.
        """
        self.catalogue = Catalogue(questionnaire.questions)
        self.questions = self.catalogue.questions
        self._every = questionnaire.question_set
        self._texts = texts
        self.only = only

    def locate(self, asked: Asked | None, notes: list[str]) -> Located:
        """Find questions in the survey, or make room for them beside it.

        Args:
            asked: ids, texts or questions; all questions of the survey if None.
            notes: where to say how a text was understood.

        Raises:
            AnswersError: one is not known and has no options, or cannot be asked.
            PredictorError: a new one cannot be embedded, or this kind predicts none.
        """
        if asked is None:
            return Located(self.questions, [True] * len(self.questions), self._every)
        several = [asked] if isinstance(asked, str | Question) else list(asked)
        places, questions = [], []
        for each in several:
            place, question = self._find(each, notes)
            places.append(place)
            questions.append(question)
        return Located(questions, [place >= 0 for place in places], self.rows(places, questions))

    def _find(self, asked: str | Question, notes: list[str]) -> tuple[int, Question]:
        if isinstance(asked, str):
            place = self.catalogue.find(asked, None, notes)
            text = asked
        else:
            place = self.catalogue.find(asked.id, None, notes) if asked.id else None
            if place is None:
                place = self.catalogue.find(asked.text, asked.options or None, notes)
            text = asked.text
        if place is not None:
            return place, self.questions[place]
        if isinstance(asked, str) or not asked.options:
            near = self.catalogue.nearest(text)
            near = f"; {near}" if near else ""
            raise AnswersError(
                f"{named(Question(text, ()))} is none of the survey's: give it options to ask it "
                f"as a new one{near}"
            )
        asked.check()
        return -1, replace(asked, id=None)

    def rows(self, places: Sequence[int], questions: Sequence[Question]) -> QuestionSet:
        """The questions as predictors see them; the rows of new ones follow those of the survey.

        Args:
            places: of each in the survey, -1 for a new one.
            questions: their texts.

        Raises:
            PredictorError: see `locate`.
        """
        every = self._every
        table, where = every.embeddings, np.array(places, np.int64)
        options = np.array([len(question.options) for question in questions], np.int64)
        new = [number for number, place in enumerate(places) if place < 0]
        first = every.first_rows[where] if len(where) else np.zeros(0, np.int64)
        if new:
            if self.only:
                raise PredictorError(
                    f"{named(questions[new[0]])} is none of the survey's, and a predictor of this "
                    f"kind ({self.only}) knows no others"
                )
            vectors = self._texts.questions([questions[place] for place in new])
            first[new] = len(table) + segment_starts(options[new])
            table = np.concatenate([table, *vectors])
            where[new] = len(every) + np.arange(len(new))
        return QuestionSet(embeddings=table, questions=where, first_rows=first, options=options)
