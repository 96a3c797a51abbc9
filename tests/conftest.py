"""What all tests share: shapes in signatures are enforced, golden numbers, ported weights."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jaxtyping
import pytest

# Tests of meshes need devices; a processor poses as eight. On a busy machine they wait long for
# each other: XLA would abort the whole process after 40 s.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=1200",
)
# XLA's pool of threads for virtual devices has one for each device: a thread that is not free when
# devices wait for each other would be waited for without end.
os.environ.setdefault("NPROC", "32")
# The user's cache is left alone, and what an earlier run left there decides nothing.
CACHE = tempfile.TemporaryDirectory(prefix="tinymu-tests-")
os.environ["TINYMU_CACHE"] = CACHE.name

# Programs of several virtual devices that run at once take each other's threads, and can then wait
# for each other for ever.
jax.config.update("jax_cpu_enable_async_dispatch", False)

# Before the package is imported: from then on every call of these modules checks the shapes and
# types that its signature promises. (typeguard 4 rewrites jaxtyping's shape strings and cannot
# parse them, hence beartype.)
CHECKED = ["audio", "inference.embedder", "inference.chunked_encoding", "models"]
jaxtyping.install_import_hook([f"tinymu_jax.{name}" for name in CHECKED], "beartype.beartype")

# The assertions of this module, too, say what they compared.
pytest.register_assert_rewrite("helpers")

TESTS = Path(__file__).parent


# Files that take longest, so that none of them is left for one of two workers at the end.
SLOWEST = (
    *("training/test_aot_compile.py", "training/test_run.py", "training/test_training.py"),
    *("training/test_pretrain.py", "training/test_kills.py", "training/test_losses.py"),
    *("training/test_labelling.py", "models/test_lora.py", "models/test_matpac_ssl.py"),
    *("models/test_tinymu.py", "inference/test_scoring.py", "inference/test_tagging.py"),
    *("quickstart/test_train_nano.py", "qa_builder/test_build.py", "cli/test_evaluate.py"),
    *("evaluation/test_synthetic_evaluation.py", "launch/test_gpu_scripts.py"),
    *("server/test_server.py", "inference/test_continuous.py"),
    *("test_mesh.py", "test_notebooks.py", "models/test_packing.py", "checkpoints/test_nano.py"),
    "server/test_page.py",
)


def pytest_collection_modifyitems(items):
    """Puts the slowest files first, in their order above, and keeps the others in theirs."""
    rank = {TESTS / name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    # On models this small, threads that wait for each other take most of the time.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def golden_dir():
    """Numbers that the authors' code gave for a small checkpoint with random weights."""
    return TESTS / "golden"


@pytest.fixture(scope="session")
def shared_dir():
    """Real recordings and data that are too large to keep here."""
    folder = Path(os.environ.get("TINYMU_SHARED") or TESTS.parents[1] / "shared")
    if not folder.is_dir():
        pytest.skip("needs ../shared beside the clone (or set TINYMU_SHARED to that folder)")
    return folder


@pytest.fixture(scope="session")
def golden(golden_dir):
    """The golden numbers by name, read once."""
    import numpy as np

    with np.load(golden_dir / "tinymu_tiny.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def golden_checkpoint(golden_dir):
    """The golden checkpoint in our layout, with a tokenizer whose words are t1, t2, ...."""
    from tinymu_jax.checkpoints.pytorch.tinymu import from_published

    checkpoint = from_published(golden_dir / "tinymu_tiny.pt")
    words = {f"t{i}": i for i in range(checkpoint.config.decoder.vocab_size)}
    for number, word in ((0, "<|endoftext|>"), (17, "!")):
        del words[f"t{number}"]
        words[word] = number
    model = {"type": "WordLevel", "vocab": words, "unk_token": "t1"}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    return checkpoint._replace(tokenizer=json.dumps(tokenizer))


@pytest.fixture(scope="session")
def assistant(golden_checkpoint):
    """An assistant over the golden weights, float32, as `load` lays them out."""
    from tinymu_jax.inference.load import make_assistant

    return make_assistant(golden_checkpoint)


@pytest.fixture(scope="session")
def checkpoint_file(golden_dir, tmp_path_factory):
    """The golden checkpoint and its json in a folder of their own, with a tokenizer."""
    from tokenizer_fixture import tokenizer_text

    folder = tmp_path_factory.mktemp("golden")
    for suffix in (".pt", ".json"):
        shutil.copy(golden_dir / f"tinymu_tiny{suffix}", folder / f"tinymu{suffix}")
    (folder / "tokenizer.json").write_text(tokenizer_text())
    return folder / "tinymu.pt"


@pytest.fixture(scope="module")
def loaded(checkpoint_file, compiled_programs_stay_here):
    """An assistant as `load` makes it from the golden checkpoint's file."""
    import tinymu_jax

    return tinymu_jax.load(checkpoint_file)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of a test's own, which is not there yet."""
    monkeypatch.setenv("TINYMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def compiled_programs_stay_here(tmp_path_factory):
    """Keeps `load` from naming a folder for the compiled programs of the whole run."""
    import jax

    part = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: getattr(jax.config, name) for name in part}
    for name, value in part.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def port():
    """Ways to give a PyTorch module random weights, and to bring them into our layout."""
    return SimpleNamespace(
        randomise=_randomise,
        matpac=_port_matpac,
        decoder=_port_decoder,
        tinymu=_port_tinymu,
        projector=_port_projector,
        unrolled=_unrolled,
        by_rows=_by_rows,
    )


def _randomise(module, seed=0):
    """Fills a module so that every weight matters: no zero biases, no scales of exactly one."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if not weight.requires_grad:
                continue
            noise = torch.randn(weight.shape, generator=generator)
            is_scale = "norm" in name and name.endswith("weight")
            spread = 0.1 if weight.ndim == 1 else weight[0].numel() ** -0.5
            weight.copy_(noise * spread + is_scale)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def _convert(module, rules, config, ties=None):
    import jax
    import jax.numpy as jnp

    from tinymu_jax.checkpoints.checkpoint import expected_shapes
    from tinymu_jax.checkpoints.pytorch.key_map import from_state_dict

    state = {key: value.numpy() for key, value in module.state_dict().items()}
    params = from_state_dict(state, rules, expected_shapes(config), "oracle", ties)
    return jax.tree.map(jnp.asarray, params)


def _port_matpac(module, **options):
    """Returns config and stacked parameters of an oracle's encoder."""
    from tinymu_jax.checkpoints.pytorch.matpac import ENCODER_RULES, FRONT_END_RULES, HEAD_RULES
    from tinymu_jax.models.config import HeadConfig, MatpacConfig

    head = None
    if hasattr(module, "head"):
        head = HeadConfig("audioset", module.head.out_features)
    elif hasattr(module, "probe"):
        head = HeadConfig("probe", module.probe.out_features)
    width, blocks = module.cls_token.shape[-1], module.student_encoder.blocks
    config = MatpacConfig(
        width=width,
        depth=len(blocks),
        num_heads=blocks[0].attn.heads,
        mlp_ratio=blocks[0].mlp.fc1.out_features // width,
        num_frames=module.n_t,
        head=head,
        **options,
    )
    rules = ENCODER_RULES + FRONT_END_RULES + (HEAD_RULES[head.kind] if head else [])
    return config, _convert(module, rules, config)


def _port_decoder(lm):
    """Returns config and stacked parameters of transformers' Llama."""
    from tinymu_jax.checkpoints.pytorch.smollm2 import RULES

    config = _decoder_config(lm)
    rules = [rule._replace(key=f"model.{rule.key}") for rule in RULES]
    return config, _convert(lm, rules, config, {"lm_head.weight": "model.embed_tokens.weight"})


def _decoder_config(lm):
    from tinymu_jax.models.config import SmolLM2Config

    reference = lm.config
    return SmolLM2Config(
        vocab_size=reference.vocab_size,
        width=reference.hidden_size,
        depth=reference.num_hidden_layers,
        num_heads=reference.num_attention_heads,
        num_kv_heads=reference.num_key_value_heads,
        head_width=reference.head_dim,
        mlp_width=reference.intermediate_size,
        rope_theta=reference.rope_parameters["rope_theta"],
        norm_eps=reference.rms_norm_eps,
    )


def _projector_config(module):
    from tinymu_jax.models.config import ProjectorConfig

    if hasattr(module, "prefix_const"):
        linear, layers = module.linear, module.transformer.layers
        return ProjectorConfig(
            "transformer",
            linear.in_features,
            output_width=linear.out_features,
            num_vectors=len(module.prefix_const),
            depth=len(layers),
            num_heads=layers[0].attn.heads,
        )
    first, second = module.linear1, module.linear2
    kind = "residual" if hasattr(module, "layer_norm") else "linear"
    return ProjectorConfig(kind, first.in_features, first.out_features, second.out_features)


def _port_projector(module):
    """Returns config and stacked parameters of an oracle's projector."""
    import jax
    import jax.numpy as jnp

    from tinymu_jax.checkpoints.pytorch.key_map import from_state_dict
    from tinymu_jax.checkpoints.pytorch.tinymu import PROJECTOR_RULES
    from tinymu_jax.models.projector import make_projector

    config = _projector_config(module)
    example = jnp.zeros((1, 1, config.input_width)), jnp.ones((1, 1), bool)
    model = make_projector(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *example))["params"]
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    params = from_state_dict(state, PROJECTOR_RULES[config.kind], shapes, "oracle")
    return config, jax.tree.map(jnp.asarray, params)


def _port_tinymu(module):
    """Returns config and stacked parameters of an oracle's whole model."""
    from tinymu_jax.checkpoints.pytorch.tinymu import TIES, rules
    from tinymu_jax.models.config import TinyMUConfig

    encoder, _ = _port_matpac(module.audio_encoder.enc)
    config = TinyMUConfig(
        encoder=encoder,
        projector=_projector_config(module.projector),
        decoder=_decoder_config(module.text_decoder.lm),
        pooling=module.audio_encoder.ds_rate,
    )
    return config, _convert(module, rules(config), config, TIES)


def _unrolled(params, axes):
    """Returns the same weights with one subtree per layer."""
    import jax
    import jax.numpy as jnp

    from tinymu_jax.inference.param_layout import unstack

    return jax.tree.map(jnp.asarray, unstack(params, axes))


def _by_rows(params, axes):
    """Returns the same weights as `load` lays them out."""
    import jax
    import jax.numpy as jnp

    from tinymu_jax.inference.param_layout import by_rows, unstack

    return jax.tree.map(jnp.asarray, by_rows(unstack(params, axes)))
