"""Questions about facts in MusicSkills' four formats, with answers that are balanced.

What is asked depends on chance alone, never on the answer: without the clip no answer is better
than another.
"""

CAPTIONING, QA, MCQ, YES_NO = "Captioning", "QA", "MCQ", "Binary"

LETTERS = "ABCD"
