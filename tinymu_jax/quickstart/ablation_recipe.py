"""The paper's ablations with nano: what each part of the recipe is worth.

    tinymu ablate --minutes 8

Each is nano's recipe but for one thing. The encoder is learnt once, and what does not differ is
shared. LoRA and the frozen decoder begin, as all others, with a decoder that knows the words.
"""

from dataclasses import dataclass, replace
from typing import Literal

from tinymu_jax.data.question_formats import MCQ, QA, YES_NO
from tinymu_jax.models.config import ProjectorKind
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.training.config import TrainConfig


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
    places: nano_recipe.Places,
    vocab_size: int,
    minutes: float,
    seed: int = 0,
    whole: nano_recipe.Places | None = None,
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
        nano_recipe.stages(x._replace(output=x.output / of), vocab_size, minutes, seed)
        for of, x in ((FULL, whole or places), (name, places))
    )
    own[nano_recipe.LABELS] = full[nano_recipe.LABELS]
    if ablation.without is None:
        own |= {stage: full[stage] for stage in (nano_recipe.LETTERS, nano_recipe.WORDS)}
    join = own[nano_recipe.JOIN]
    start = replace(
        join.init, encoder=full[nano_recipe.LABELS].output, decoder=own[nano_recipe.WORDS].output
    )
    bridge = replace(join.model.projector, kind=ablation.projector)
    own[nano_recipe.JOIN] = replace(join, init=start, model=replace(join.model, projector=bridge))
    if ablation.without is None and bridge == join.model.projector:
        own[nano_recipe.JOIN] = full[nano_recipe.JOIN]
    last = own[nano_recipe.TUNE]
    last = replace(last, init=replace(last.init, checkpoint=own[nano_recipe.JOIN].output))
    if ablation.decoder == "lora":
        last = replace(
            last, lora=nano_recipe.LORA, optim=replace(last.optim, frozen_params=LORA_FROZEN_PARAMS)
        )
    if ablation.decoder == "frozen":
        frozen = rf"{last.optim.frozen_params}|decoder/.*"
        last = replace(last, optim=replace(last.optim, frozen_params=frozen))
    own[nano_recipe.TUNE] = last
    return own
