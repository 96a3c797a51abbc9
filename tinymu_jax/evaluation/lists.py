"""Any list in MusicSkills' format: asked as it stands, and marked by the format of each question.

Multiple choice is right by the letter, yes or no by the first word; all else is compared with the
wanted texts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tinymu_jax.data.questions import LETTERS, MCQ, YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.asking import Asking, Reply
from tinymu_jax.evaluation.choice_baselines import blind_marks
from tinymu_jax.evaluation.choice_marks import UNANSWERED, Cell
from tinymu_jax.evaluation.choice_questions import ChoiceQuestion
from tinymu_jax.evaluation.choice_rules import read_letter
from tinymu_jax.evaluation.findings import Answered, Confusion, Findings, Measure, Table
from tinymu_jax.evaluation.intervals import RESAMPLES, measure_shares
from tinymu_jax.evaluation.left_out import (
    Answers,
    cut_notices,
    left_out_notices,
    left_out_tables,
    sort_replies,
)
from tinymu_jax.evaluation.list_questions import YES_OR_NO, ListQuestion, QuestionList
from tinymu_jax.evaluation.synthetic.marking import read_yes_no
from tinymu_jax.evaluation.text_scores import BLEU, ROUGE_L, bleu, exact, rouge_l

Put = Callable[[Sequence[Asking]], Sequence[Reply | InputError]]
ACCURACY, EXACT = "accuracy", "exact"
TITLES = {MCQ: "Multiple choice", YES_NO: "Yes or no"}
"""Of tasks that are marked as right or wrong; others go by their own names."""
ALL, BASELINES = "all", "Without listening, by the same questions"
BLEUS = (BLEU[0], BLEU[-1])
WORST = 20
