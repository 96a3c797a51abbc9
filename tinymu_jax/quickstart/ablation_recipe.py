"""The paper's ablations with nano: what each part of the recipe contributes.

    tinymu ablate --minutes 8

Each ablation is nano's recipe with one change. The encoder is trained once, and unchanged stages
are shared. LoRA and the frozen decoder start, like all others, from a decoder trained on text.
"""

from dataclasses import dataclass, replace
from typing import Literal

from tinymu_jax.data.question_formats import MCQ, QA, YES_NO
from tinymu_jax.models.config import ProjectorKind
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.nano_recipe import JOIN, LABELS, LETTERS, TUNE, WORDS
from tinymu_jax.training.config import TrainConfig


@dataclass(frozen=True)
class Ablation:
    """A change to nano's recipe."""

    title: str
    paper: float | None = None
    """Accuracy on MuChoMusic in percent, from the paper's table of ablations."""
    without: str | None = None
    """Task removed from all training data, text and audio."""
    projector: ProjectorKind = "transformer"
    """All kinds return the same number of vectors."""
    decoder: Literal["full", "lora", "frozen"] = "full"
    """How the decoder is trained in the last stage."""


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
    paths: nano_recipe.RunPaths,
    vocab_size: int,
    minutes: float,
    seed: int = 0,
    full_paths: nano_recipe.RunPaths | None = None,
) -> dict[str, TrainConfig]:
    """Returns the config of each stage of an ablation, by the names of nano's stages.

    Args:
        name: of `ABLATIONS`.
        paths: data of the ablation, and the folder of all ablations, with one folder of runs each.
        vocab_size: of the tokenizer.
        minutes: training time of nano's full recipe on two cores.
        seed: of weights and order.
        full_paths: data with all tasks, for shared stages; default `paths`.
    """
    ablation = ABLATIONS[name]
    full, runs = (
        nano_recipe.stages(x._replace(output=x.output / folder), vocab_size, minutes, seed)
        for folder, x in ((FULL, full_paths or paths), (name, paths))
    )
    runs[LABELS] = full[LABELS]
    if ablation.without is None:
        runs |= {stage: full[stage] for stage in (LETTERS, WORDS)}
    join = runs[JOIN]
    init = replace(join.init, encoder=full[LABELS].output, decoder=runs[WORDS].output)
    projector = replace(join.model.projector, kind=ablation.projector)
    runs[JOIN] = replace(join, init=init, model=replace(join.model, projector=projector))
    if ablation.without is None and projector == join.model.projector:
        runs[JOIN] = full[JOIN]
    tune = runs[TUNE]
    tune = replace(tune, init=replace(tune.init, checkpoint=runs[JOIN].output))
    if ablation.decoder == "lora":
        optim = replace(tune.optim, frozen_params=LORA_FROZEN_PARAMS)
        tune = replace(tune, lora=nano_recipe.LORA, optim=optim)
    if ablation.decoder == "frozen":
        frozen = rf"{tune.optim.frozen_params}|decoder/.*"
        tune = replace(tune, optim=replace(tune.optim, frozen_params=frozen))
    runs[TUNE] = tune
    return runs
