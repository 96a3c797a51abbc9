"""The paper's ablations with nano: what each part of the recipe is worth.

    tinymu ablate --minutes 8
    tinymu train --config configs/ablations.py

Each is nano's recipe but for one thing. The encoder is learnt once, and what does not differ is
shared. LoRA and the frozen decoder begin, as all others, with a decoder that knows the words.
`config` is the last stage of the one with LoRA by itself.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from configs import nano
from tinymu_jax.config import ProjectorKind
from tinymu_jax.data.questions import MCQ, QA, YES_NO
from tinymu_jax.training.config import TrainConfig
from tinymu_jax.training.lora import FROZEN


@dataclass(frozen=True)
class Ablation:
    """How a model's recipe differs from nano's own."""

    told: str
    """The difference in words."""
    paper: float | None = None
    """Percent of MuChoMusic that the paper reports (table of ablations), where it does."""
    without: str | None = None
    """The task that is left out of all it learns from, in words and heard."""
    projector: ProjectorKind = "transformer"
    """Kind of the projector; as many vectors of audio come out of each."""
    decoder: Literal["full", "lora", "frozen"] = "full"
    """What of the decoder learns in the last stage."""


FULL = "full"
ABLATIONS = {
    FULL: Ablation("nano's recipe: full fine-tuning", 58.6),
    "lora": Ablation("LoRA, rank 8", 39.9, decoder="lora"),
    "frozen": Ablation("frozen decoder", 24.2, decoder="frozen"),
    "no_choice": Ablation("no multiple choice", 24.5, without=MCQ),
    "no_binary": Ablation("no yes or no", 56.4, without=YES_NO),
    "no_open": Ablation("no open questions", 54.9, without=QA),
    "linear": Ablation("linear projector", projector="linear"),
    "residual": Ablation("residual projector", projector="residual"),
}
"""By name, in the order of the table."""


def stages(
    name: str,
    places: nano.Places,
    vocab_size: int,
    minutes: float,
    seed: int = 0,
    whole: nano.Places | None = None,
) -> dict[str, TrainConfig]:
    """Returns the runs of an ablation, by the names of nano's stages.

    Args:
        name: of `ABLATIONS`.
        places: of its data and of all ablations' runs: each has a folder of its name.
        vocab_size: of the tokenizer.
        minutes: of nano's whole recipe on two cores.
        seed: of weights and order.
        whole: of the data that nothing is left out of, where the ablation's is other: what is
            shared learns from it.
    """
    ablation = ABLATIONS[name]
    full, own = (
        nano.stages(x._replace(output=x.output / of), vocab_size, minutes, seed)
        for of, x in ((FULL, whole or places), (name, places))
    )
    own[nano.LABELS] = full[nano.LABELS]
    if ablation.without is None:
        own |= {stage: full[stage] for stage in (nano.LETTERS, nano.WORDS)}
    join = own[nano.JOIN]
    start = replace(join.start, encoder=full[nano.LABELS].output, decoder=own[nano.WORDS].output)
    bridge = replace(join.model.projector, kind=ablation.projector)
    own[nano.JOIN] = replace(join, start=start, model=replace(join.model, projector=bridge))
    if ablation.without is None and bridge == join.model.projector:
        own[nano.JOIN] = full[nano.JOIN]
    last = own[nano.TUNE]
    last = replace(last, start=replace(last.start, checkpoint=own[nano.JOIN].output))
    if ablation.decoder == "lora":
        last = replace(last, lora=nano.LORA, optim=replace(last.optim, frozen=FROZEN))
    if ablation.decoder == "frozen":
        frozen = rf"{last.optim.frozen}|decoder/.*"
        last = replace(last, optim=replace(last.optim, frozen=frozen))
    own[nano.TUNE] = last
    return own


_FOLDER = Path("ablations")
_PLACES = nano.places_of(_FOLDER / "data", _FOLDER)
config = stages("lora", _PLACES, vocab_size=600, minutes=8)[nano.TUNE]
