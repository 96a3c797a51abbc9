"""A GPU gives the same numbers as a CPU; `python -m pytest -m gpu` where there is one.

All files that hold the authors' numbers can be run there too (`test_golden.py`, `test_matpac.py`,
`test_matpac_ssl.py` and so on); those of meshes need eight devices.
"""

import jax
import numpy as np
import pytest
from inference.test_golden import CASES, NEW_TOKENS, inputs, waveforms  # noqa: F401 - a fixture
from models.test_matpac_ssl import case, one_step  # noqa: F401 - a fixture

from tinymu_jax.inference.load import make_assistant

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    """The default device."""
    device = jax.devices()[0]
    assert device.platform == "gpu", "jax sees no GPU: install jax with its CUDA plugin"
    return device


def test_answers_match_the_authors_token_for_token(golden, waveforms, assistant, gpu):  # noqa: F811
    clips, prompts, _ = zip(*(inputs(golden, waveforms, name) for name in CASES), strict=True)
    assert jax.tree.leaves(assistant.params)[0].devices() == {gpu}
    made = assistant.generate_token_batch(clips, prompts, NEW_TOKENS)
    assert made == [golden[f"{name}/greedy"].tolist() for name in CASES]


@pytest.mark.parametrize(("compute_dtype", "near"), [("float32", 5e-5), ("bfloat16", 0.03)])
def test_answer_logits_match_the_authors(
    golden,
    waveforms,  # noqa: F811
    golden_checkpoint,
    compute_dtype,
    near,
):
    assistant = make_assistant(golden_checkpoint, compute_dtype, compute_dtype)
    for name in CASES:
        made = assistant.target_logits(*inputs(golden, waveforms, name))
        expected = golden[f"{name}/target_logits"]
        assert np.linalg.norm(made - expected) < near * np.linalg.norm(expected), name


def test_a_pretraining_step_matches_the_cpu(case):  # noqa: F811
    with jax.default_device(jax.devices("cpu")[0]):
        expected = jax.tree.map(np.asarray, one_step(case, 2000))
    result = one_step(case, 2000)
    for part, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(other).max()), 1e-6)
        np.testing.assert_allclose(part, other, rtol=0, atol=1e-4 * scale)
