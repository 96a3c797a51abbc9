"""Find questions that leak from test sets, and duplicate questions."""
