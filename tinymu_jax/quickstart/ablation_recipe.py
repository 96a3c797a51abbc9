"""Training configs of the paper's ablations, repeated with nano, a small TinyMU.

    tinymu ablate --minutes 8

Each ablation changes one part of nano's training recipe. Training stages that the change does not
affect, such as the encoder's, are shared. The decoder is always trained on text before it is used
with audio, also in the ablations with LoRA and a frozen decoder.
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
    """One change to the training recipe of nano, a small TinyMU."""

    title: str
    paper: float | None = None
    """Accuracy on MuChoMusic in percent that the paper reports for this ablation, or None."""
    without: str | None = None
    """Question format that is removed from all training data (text and audio), or None."""
    projector: ProjectorKind = "transformer"
    """Kind of projector; every kind returns the same number of vectors per clip."""
    decoder: Literal["full", "lora", "frozen"] = "full"
    """Part of the decoder that the last stage trains: all weights, LoRA matrices or nothing."""


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
"""Ablations by name, in the order of the rows of the results table."""


def stages(
    name: str,
    paths: nano_recipe.RunPaths,
    vocab_size: int,
    minutes: float,
    seed: int = 0,
    full_paths: nano_recipe.RunPaths | None = None,
) -> dict[str, TrainConfig]:
    """Return the training configs by stage name, in training order.

    `name` is the ablation's key in `ABLATIONS`. `paths.output` gets one folder of runs per
    ablation. The number of steps is that of nano's full recipe in `minutes` on two CPU cores.
    Stages that are shared with the full recipe train on the data in `full_paths`, default `paths`.
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
