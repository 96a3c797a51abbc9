"""The question formats of MusicSkills, by the names of their tasks."""

CAPTIONING, QA, MCQ, YES_NO = "Captioning", "QA", "MCQ", "Binary"

LETTERS = "ABCD"
"""Letters of the options of a multiple-choice question."""
