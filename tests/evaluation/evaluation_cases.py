"""Engines that give fixed answers, for tests of evaluations."""

from tinymu_jax.errors import InputError
from tinymu_jax.inference.engine import Response


def saying(answers, default="", cut=()):
    """Returns an engine that answers by the recording's name; "" is the answer without audio.

    An answer of None is a missing recording. The requests are stored in `put.asked`.
    """

    def answer(one):
        name = one.audio.name if one.audio else ""
        said = answers.get((name, one.prompt), answers.get(name, default))
        if said is None:
            return InputError(f"{one.audio}: no such file")
        scores = () if isinstance(said, str) else tuple(said)
        text = said if isinstance(said, str) else one.options[scores.index(max(scores))]
        return Response(text, scores, total_seconds=float(name in cut))

    def put(asked):
        put.asked = list(asked)
        return [answer(one) for one in asked]

    return put


def cells(table, row, digits=4):
    """Returns the values of a row by column, rounded; those that are not there are None."""
    values = [None if one is None or one.value is None else one.value for one in table.rows[row]]
    rounded = [None if value is None else round(value, digits) for value in values]
    return dict(zip(table.columns, rounded, strict=True))
