"""Texts in place of recordings: stored as tokens, and trained on by the decoder."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusal

from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.dataset import BAD_FILE, Dataset
from tinymu_jax.data.loader import PackedBatches
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.records import as_packed_question
from tinymu_jax.data.sampler import make_groups, make_plan
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.models.tinymu import TinyMU, label_loss
from tinymu_jax.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer
from tinymu_jax.training.config import DataConfig, OptimConfig, TrainConfig
from tinymu_jax.training.flops import training_flops
from tinymu_jax.training.tasks.finetune import FinetuneTask, answer_loss
from tinymu_jax.training.train_step import StepContext
from tinymu_jax.utils.tree import flatten

TEXTS = {
    "a.txt": "a flute, slow, without drums",
    "b.txt": "loud, a plucked string, in three, a single line, rising, echoing, major",
    "c.txt": "an organ",
    "d.txt": "swelling, high, a synth bass!",
}
BAD = {"empty.txt": b"", "noise.txt": b"\xff\xfe\x00\xd8", "missing.txt": None}
QUESTIONS = [("What plays?", "a flute"), ("Is it slow?", "Yes."), ("How loud is it?", "not! loud")]
PACKING = PackingConfig(row_length=110, rows=3, max_clips=4, max_labels=90, buffer_size=4)
FREE = r"encoder/.*|projector/.*"


# --- the tokenizer -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer_file():
    prompts = [text for pair in QUESTIONS for text in pair]
    return train_tokenizer([*TEXTS.values(), *prompts] * 3, size=400)


def test_a_trained_tokenizer_has_smollm2s_special_tokens(tokenizer_file):
    import tokenizer_fixture
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_str(tokenizer_file)
    expected = list(SPECIAL_TOKENS)
    assert [fast.id_to_token(number) for number in range(17)] == expected
    assert expected == tokenizer_fixture.SPECIAL_TOKENS
    assert fast.token_to_id("!") == 17
    assert 17 + 256 < fast.get_vocab_size() <= 400
    for number, token in enumerate(SPECIAL_TOKENS):
        assert fast.encode(f"a {token} b").ids.count(number) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a flute, slow",
        "Yes!!",
        " two  spaces ",
        "tab\tand\nline",
        "1024",
        "Déjà vu 音楽 🎸\x00\u0600",
    ],
)
def test_the_tokenizer_is_lossless(tokenizer_file, text):
    tokenizer = Tokenizer(tokenizer_file)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokenizer_is_compact_on_its_training_text(tokenizer_file):
    tokenizer = Tokenizer(tokenizer_file)
    for text in TEXTS.values():
        assert len(tokenizer.encode(text)) < len(text) / 2
    assert train_tokenizer([*TEXTS.values()]) == train_tokenizer([*TEXTS.values()])


# --- the data set ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tokenizer_file):
    """A data set of texts, each with all questions; some texts cannot be used."""
    folder = tmp_path_factory.mktemp("texts")
    for name, content in {**{k: v.encode() for k, v in TEXTS.items()}, **BAD}.items():
        if content is not None:
            (folder / name).write_bytes(content)
    records = [
        {
            "file_name": name,
            "input_text": prompt,
            "target_text": answer,
            "dataset": "Made",
            "task": "QA",
        }
        for name in (*TEXTS, *BAD)
        for prompt, answer in QUESTIONS
    ]
    (folder / "list.json").write_text(json.dumps(records))
    config = PrepareConfig(FeatureConfig(kind="text"), max_bad_fraction=0.9, workers=1)
    prepare([folder / "list.json"], [folder], folder / "out", tokenizer_file, config)
    return Dataset(folder / "out")


def test_records_hold_the_tokens_of_the_texts(prepared, tokenizer_file):
    tokenizer = Tokenizer(tokenizer_file)
    assert prepared.features.kind == "text"
    assert len(prepared) == len(TEXTS)
    for number, text in enumerate(TEXTS.values()):
        features = prepared[number].features
        assert features.dtype == np.int32
        assert features.tolist() == tokenizer.encode(text)
        assert prepared.index.columns[number] == len(features)
        assert [(q.prompt, q.answer) for q in prepared[number].questions] == QUESTIONS


def test_unusable_texts_are_listed(prepared):
    lines = (prepared.folder / BAD_FILE).read_text().splitlines()
    reasons = {
        json.loads(line)["clip"].split("/")[-1]: json.loads(line)["reason"] for line in lines
    }
    assert set(reasons) == set(BAD)
    assert "empty.txt: is empty; " in reasons["empty.txt"]
    assert "noise.txt: is not text; " in reasons["noise.txt"]
    assert "missing.txt: cannot be read" in reasons["missing.txt"]
    assert prepared.manifest["bad"] == 3


def make_batches(dataset, config):
    groups = make_groups(dataset.lengths(config), PACKING, config)
    return PackedBatches(dataset, make_plan(groups, PACKING, 0, 1), PACKING, config, 1)


def test_pooling_does_not_change_the_length_of_a_text(prepared, golden_checkpoint):
    for pooling in (1, 4):
        lengths = prepared.lengths(replace(golden_checkpoint.config, pooling=pooling))
        assert lengths.audio.tolist() == [len(prepared[n].features) for n in range(len(TEXTS))]


# --- the loss ----------------------------------------------------------------------------------


def padded(rows):
    """Returns arrays of different lengths side by side, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    whole = np.zeros((len(rows), lengths.max()), np.int32)
    for number, row in enumerate(rows):
        whole[number, : len(row)] = row
    return jnp.asarray(whole), jnp.asarray(lengths)


def loss_one_by_one(params, dataset, config, reach):
    """Returns the mean loss of all questions, each on its own, its text where audio would be.

    At `reach` 0 the texts' embeddings count as given, at 1 they are learnt.
    """
    asked = [(r.features, as_packed_question(q, config)) for r in dataset for q in r.questions]
    texts, num_texts = padded([text for text, _ in asked])
    prompts, num_prompts = padded([question.prompt for _, question in asked])
    labels, num_labels = padded([question.labels for _, question in asked])
    audio = params["decoder"]["embed_tokens"]["embedding"][texts]
    inputs = jax.lax.stop_gradient(audio)
    audio = inputs + reach * (audio - inputs)
    arguments = (audio, num_texts, prompts, num_prompts, labels, num_labels)
    logits = TinyMU(config).apply({"params": params}, *arguments, method="answer_logits")
    return label_loss(logits, labels, num_labels, config)


@pytest.fixture(scope="module")
def compared(prepared, golden_checkpoint):
    """(loss, gradient) of the packed batches, of the questions one by one, and unreached."""
    config, params = golden_checkpoint.config, golden_checkpoint.params
    decoder = {"decoder": params["decoder"]}
    batches = make_batches(prepared, config)
    records = [prepared[number] for number in range(len(prepared))]

    assert len(batches) == 1

    def packed(params, batch):
        loss = answer_loss(config, "text")(params, {}, batch, StepContext(jax.numpy.int32(0)))
        return loss.loss_sum / loss.num_targets

    @jax.jit
    def together(params, batch):
        return jax.value_and_grad(packed)(params, batch)

    @jax.jit
    def alone(params, reach):
        return jax.value_and_grad(loss_one_by_one)(params, records, config, reach)

    return together(decoder, batches[0]), alone(decoder, 1.0), alone(decoder, 0.0)


def test_the_loss_equals_that_of_single_questions(compared):
    (result, gradient), (target, by_hand), _ = compared
    np.testing.assert_allclose(result, target, rtol=1e-6)
    targets = dict(flatten(by_hand))
    for path, leaf in flatten(gradient):
        largest = np.abs(targets[path]).max()
        assert largest > 0
        assert np.abs(leaf - targets[path]).max() < 1e-5 * largest, path


def test_the_gradient_reaches_the_embedding_through_the_texts(compared, prepared):
    tables = [result[1]["decoder"]["embed_tokens"]["embedding"] for result in compared]
    packed, _, unreached = tables
    largest = np.abs(packed).max()
    differing = set(np.flatnonzero(np.abs(packed - unreached).max(1) > 1e-5 * largest).tolist())
    assert differing == {t for n in range(len(TEXTS)) for t in prepared[n].features.tolist()}


def test_the_step_has_neither_encoder_nor_projector(golden_checkpoint):
    model = golden_checkpoint.config
    base = training_flops(model, 100, 10, 5, "text", frozen=FREE)
    assert base == training_flops(model, 100, 10, 0, "text", frozen=FREE)
    assert base < training_flops(model, 100, 10, 5, "embeddings", frozen=FREE)


# --- the run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frozen", "part"), [("projector/.*", "encoder"), ("encoder/.*", "projector")]
)
@pytest.mark.parametrize("field", ["train", "validation"])
def test_encoder_training_rejects_texts(
    prepared, golden_checkpoint, tokenizer_file, frozen, part, field
):
    config = TrainConfig(
        data=DataConfig(train=str(prepared.folder), packing=PACKING),
        optim=OptimConfig(frozen_params=frozen),
        mesh=MeshConfig(1, 1, 1),
    )
    if field == "validation":
        config = replace(config, data=replace(config.data, validation=str(prepared.folder)))
    message = refusal(
        FinetuneTask,
        config,
        golden_checkpoint.config,
        golden_checkpoint.params,
        tokenizer_file,
        jax.devices()[:1],
    )
    assert f"stores text, which bypasses the {part}" in message
    assert "freeze '(encoder|projector)/.*'" in message


def test_texts_of_another_tokenizer_are_rejected(prepared, golden_checkpoint):
    from tokenizer_fixture import tokenizer_text

    message = refusal(prepared.check_model, tokenizer_text(), golden_checkpoint.params["encoder"])
    assert "its tokens come from another tokenizer than the model's" in message
