"""Evaluation: questions with known answers, marked beside what can be had without listening."""
