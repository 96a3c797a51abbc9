"""MusicSkills' names of its four question formats (the field `task`), and the option letters."""

CAPTIONING, QA, MCQ, YES_NO = "Captioning", "QA", "MCQ", "Binary"
LETTERS = "ABCD"
"""Letters of the options of a multiple-choice question, in order."""
