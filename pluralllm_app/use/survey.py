"""The questions of a survey, and new ones beside them, as texts and as predictors see them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import numpy as np

from pluralllm_app.core.segments import Halves, segment_starts
from pluralllm_app.errors import AnswersError, PredictorError
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.survey.shared import Questionnaire
from pluralllm_app.use.embedding import Texts
from pluralllm_app.use.questions import Catalogue, Question, named, told

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
        several: Any = asked
        if isinstance(asked, str | Question) or not isinstance(asked, Iterable):
            several = [asked]
        places, questions = [], []
        for each in several:
            place, question = self.find(each, notes)
            places.append(place)
            questions.append(question)
        return Located(questions, [place >= 0 for place in places], self.rows(places, questions))

    def find(self, asked: str | Question, notes: list[str]) -> tuple[int, Question]:
        """The place of a question in the survey, -1 for a new one, and the question itself.

        Raises:
            AnswersError: see `locate`.
        """
        if not isinstance(asked, str | Question):
            raise AnswersError(f"{asked!r} is no question: give an id, a text or a Question")
        place = self.catalogue.find(asked, None, notes)
        wish = asked if isinstance(asked, Question) else Question(asked, ())
        if place is not None:
            found = self.questions[place]
            if wish.options and wish.options != found.options:
                notes.append(f"{named(found)} has in the survey the options {told(found)}")
            return place, found
        misspelt = self.catalogue.misspelt(wish.text)
        if not wish.options:
            near = f"did you mean {misspelt!r}?" if misspelt else self.catalogue.nearest(wish.text)
            raise AnswersError(
                f"{named(wish)} is none of the survey's: give it options to ask it as a new one"
                + (f"; {near}" if near else "")
            )
        wish.check()
        if known := self.catalogue.with_text(wish.text):
            notes.append(
                f"{named(wish)} was read as a new question: the survey's has the options "
                + told(self.questions[known[0]])
            )
        elif misspelt:
            notes.append(
                f"{named(wish)} was read as a new question, but is nearly the survey's "
                f"{shorten(misspelt, 80)!r}"
            )
        return -1, replace(wish, id=None)

    def embedded(self, questions: Sequence[Question]) -> list[Halves]:
        """A vector for each option of each question, by the survey's embedder: [options, dim].

        Raises:
            PredictorError: the embedder cannot be had.
        """
        return self._texts.questions(questions)

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
