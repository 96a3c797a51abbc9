"""What is read from a compiled program and predicted of it; the step compiled for a real pod."""

import importlib.util
import json
import math
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from helpers import ROOT, refusal

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.inference.param_layout import unstack
from tinymu_jax.mesh import MeshConfig, make_mesh
from tinymu_jax.models.config import (
    ClassHeadConfig,
    LoraConfig,
    MatpacConfig,
    PredictorConfig,
    SelfSupervisedConfig,
    TinyMUConfig,
)
from tinymu_jax.models.matpac_ssl.student_teacher import (
    init_student_and_teacher,
    split_teacher,
    ssl_loss,
)
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.models.smollm2 import SmolLM2, param_axes
from tinymu_jax.training.accelerators import CHIPS, chip_of
from tinymu_jax.training.aot import compile as pod_program
from tinymu_jax.training.aot import forecast
from tinymu_jax.training.aot.compile import lower_pretraining
from tinymu_jax.training.aot.hlo import executed, read_program, shape_bytes
from tinymu_jax.training.aot.traffic import Collective, collectives, kernel_calls, memory_bytes
from tinymu_jax.training.flops import flops_of, pretraining_flops, training_flops
from tinymu_jax.utils.tree import flatten

COMMAND = ROOT / "launch" / "compile_for_pod.py"

# By hand: a loop of five with an all-reduce, written as XLA prints it for a TPU.
HLO = """HloModule step, is_scheduled=true, replica_count=1, num_partitions=16

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%all-reduce-scatter.1 (input: f32[64,4]) -> f32[16,4] {
  %input = f32[64,4]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[64,4]{1,0:T(8,128)} all-reduce(%input), channel_id=9, \
replica_groups={{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}, to_apply=%add
  ROOT %piece = f32[16,4]{1,0} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={16,4}
}

%first_half (p: bf16[10]) -> bf16[40] {
  %p = bf16[10]{0} parameter(0)
  ROOT %all-gather.1 = bf16[40]{0} all-gather(%p), channel_id=4, replica_groups=[4,4]<=[16], \
dimensions={0}
}

%second_half (q: bf16[10]) -> bf16[40] {
  %q = bf16[10]{0} parameter(0)
  ROOT %all-gather.2 = bf16[40]{0} all-gather(%q), channel_id=4, replica_groups=[4,4]<=[16], \
dimensions={0}
}

%cut (all: f32[5,100], at: s32[]) -> f32[100] {
  %all = f32[5,100]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%all, %at, %zero), dynamic_slice_sizes={1,100}
  ROOT %flat = f32[100]{0} bitcast(%row)
}

%keep (old: f32[5,100], new: f32[1,100], at.1: s32[]) -> f32[5,100] {
  %old = f32[5,100]{1,0} parameter(0)
  %new = f32[1,100]{1,0} parameter(1)
  %at.1 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  ROOT %kept = f32[5,100]{1,0} dynamic-update-slice(%old, %new, %at.1, %zero.1)
}

%body (state: (s32[], f32[5,100])) -> (s32[], f32[5,100]) {
  %state = (s32[], f32[5,100]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %rows = f32[5,100]{1,0} get-tuple-element(%state), index=1
  %one = f32[100]{0:T(128)S(1)} fusion(%rows, %i), kind=kLoop, calls=%cut
  %summed = (f32[100]{0:T(128)S(1)}, /*index=1*/f32[2]{0:T(128)S(1)}) all-reduce(%one, %i), \
channel_id=2, replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}, to_apply=%add
  %wide = f32[1,100]{1,0:T(8,128)S(1)} bitcast(%summed)
  %again = f32[5,100]{1,0} fusion(%rows, %wide, %i), kind=kLoop, calls=%keep
  ROOT %next = (s32[], f32[5,100]{1,0}) tuple(%i, %again)
}

%condition (state.1: (s32[], f32[5,100])) -> pred[] {
  %state.1 = (s32[], f32[5,100]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(5)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %below = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: f32[5,100], b: f32[64,4], c: bf16[10]) -> f32[5,100] {
  %a = f32[5,100]{1,0} parameter(0)
  %b = f32[64,4]{1,0} parameter(1)
  %c = bf16[10]{0} parameter(2)
  %nothing = s32[] constant(0)
  %start = (s32[], f32[5,100]{1,0}) tuple(%nothing, %a)
  %loop = (s32[], f32[5,100]{1,0}) while(%start), condition=%condition, body=%body
  %scattered = f32[16,4]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
  %gathered = bf16[40]{0} fusion(%c), kind=kOutput, calls=%first_half
  %gathered.1 = bf16[40]{0} fusion(%c), kind=kOutput, calls=%second_half
  %sent = (bf16[10]{0}, bf16[10]{0}, u32[], u32[]) collective-permute-start(%c), channel_id=5, \
source_target_pairs={{0,1},{1,0}}
  %arrived = bf16[10]{0} collective-permute-done(%sent)
  %fetch = (f32[64,4]{1,0:S(1)}, f32[64,4]{1,0}, u32[]) copy-start(%b)
  %fetched = f32[64,4]{1,0:S(1)} copy-done(%fetch)
  ROOT %result = f32[5,100]{1,0} get-tuple-element(%loop), index=1
}
"""


def command():
    """Returns the command as a module."""
    spec = importlib.util.spec_from_file_location("compile_for_pod", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- reading a program ---------------------------------------------------------------------------


def test_a_loops_body_runs_as_often_as_its_condition_says():
    program = read_program(HLO)
    assert program.devices == 16
    assert list(executed(program)) == [("main", 1), ("body", 5)]
    known = HLO.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert dict(executed(read_program(known)))["body"] == 7


def test_a_loop_of_unknown_length_is_named():
    program = read_program(HLO.replace("direction=LT", "direction=NE"))
    with pytest.raises(ValueError, match="loop loop: how often it runs cannot be read"):
        list(executed(program))


def test_every_kind_of_collective_is_counted_with_its_bytes():
    assert collectives(read_program(HLO)) == {
        # In a loop of five; of two arrays, round a ring of four.
        "all-reduce": Collective(5, 5 * 408, 5 * 408 * 2 * 3 / 4),
        # A sum of which each chip keeps its part.
        "reduce-scatter": Collective(1, 1024, 1024 * 3 / 4),
        # One transfer in two pieces.
        "all-gather": Collective(1, 80, 60),
        "collective-permute": Collective(1, 20, 20),
    }


OVERLAPPED = """HloModule step, is_scheduled=true, replica_count=1, num_partitions=4

%first_half (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %reduced = f32[8]{0} all-reduce(%p), channel_id=1, replica_groups={}, to_apply=%add
}

%square (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %product = f32[8]{0} multiply(%q, %q)
}

ENTRY %main (a: f32[8], b: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %async-collective-start.1 = f32[8]{0} fusion(%a), kind=kCustom, calls=%first_half
  %work = f32[8]{0} fusion(%b), kind=kLoop, calls=%square
  %async-collective-done.1 = f32[8]{0} custom-call(%async-collective-start.1)
  %all-reduce-start = f32[8]{0} all-reduce-start(%work), channel_id=2, replica_groups={}
  %all-reduce-done = f32[8]{0} all-reduce-done(%all-reduce-start)
  ROOT %sum = f32[8]{0} add(%async-collective-done.1, %all-reduce-done)
}
"""


def test_only_transfers_with_work_before_their_end_are_overlapped():
    sent = 32 * 2 * 3 / 4
    both = collectives(read_program(OVERLAPPED))["all-reduce"]
    assert both == Collective(2, 64, 2 * sent, sent)
    late = OVERLAPPED.replace("%work = f32[8]{0} fusion(%b), kind=kLoop, calls=%square", "")
    late = late.replace("all-reduce-start(%work)", "all-reduce-start(%b)")
    assert collectives(read_program(late))["all-reduce"].overlapped == 0


@pytest.mark.parametrize(
    ("groups", "sent"),
    [
        ("replica_groups={}", 15 / 16),
        ("replica_groups={{0,1},{2,3}}", 1 / 2),
        ("replica_groups=[2,8]<=[16]", 7 / 8),
        ("replica_groups=mesh['a'=4,'b'=4], device_ids=([4,4]T(1,0)) {'a','b'}", 15 / 16),
    ],
)
def test_groups_are_read_in_every_form(groups, sent):
    line = f"  %g = f32[16]{{0}} all-gather(%c), channel_id=4, {groups}, dimensions={{0}}"
    text = "HloModule m, num_partitions=16\n\nENTRY %main (c: f32[1]) -> f32[16] {\n"
    assert collectives(read_program(f"{text}{line}\n}}"))["all-gather"].sent == 64 * sent


def test_groups_in_an_unknown_form_are_not_guessed_at():
    with pytest.raises(ValueError, match="unknown form"):
        collectives(read_program(HLO.replace("[4,4]<=[16]", "others")))


def test_of_what_is_cut_or_written_into_the_piece_is_moved():
    # The loop reads a row and writes a row; its sum stays on the chip. Then the scatter, twice the
    # gather, what is sent and received, and a copy onto the chip.
    row, index = 400, 4
    loop = 5 * (row + index + index + row + index)
    assert memory_bytes(read_program(HLO)) == loop + (1024 + 256) + 2 * (20 + 80) + 20 + 20 + 1024


def test_bytes_of_shapes():
    assert (
        shape_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[5]{0:S(1)}, pred[], s4[4])") == 24 + 10 + 1 + 2
    )
    assert shape_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[5]{0:S(1)})", memory_only=True) == 24


def test_kernels_are_counted_as_often_as_their_loop_runs():
    call = '%kernel = f32[100]{0} custom-call(%one), custom_call_target="tpu_custom_call"'
    with_kernel = HLO.replace("  %summed =", f"  {call}\n  %summed =")
    assert kernel_calls(read_program(with_kernel)) == 5
    assert kernel_calls(read_program(HLO)) == 0


def test_a_program_of_this_jax_can_be_read():
    def body(x, _):
        return jnp.tanh(x @ x), None

    step = jax.jit(lambda x: jax.lax.scan(body, x, None, length=6)[0])
    compiled = step.lower(jnp.zeros((8, 8))).compile()
    times = [times for _, times in executed(read_program(compiled.as_text()))]
    assert 6 in times
    assert collectives(read_program(compiled.as_text())) == {}


# --- operations ----------------------------------------------------------------------------------


def test_operations_are_six_for_each_number_that_learns():
    config = TinyMUConfig()
    sizes = {path: math.prod(leaf.shape) for path, leaf in flatten(expected_shapes(config))}
    body = sum(n for path, n in sizes.items() if path.startswith("decoder/body"))
    table = sizes["decoder/embed_tokens/embedding"]
    assert flops_of(config, seen=0).slot == pytest.approx(6 * body, rel=1e-3)
    assert flops_of(config).label == 6 * table
    # Both products of attention, of 30 layers of 9 heads of 64, three times.
    assert flops_of(config, seen=100).slot - flops_of(config, seen=0).slot == pytest.approx(
        12 * 30 * 576 * 100
    )
    # The frozen encoder only forward: about 54 GFLOP for 10 s, and attention's 3.6 besides.
    bridge = sum(n for path, n in sizes.items() if path.startswith("projector"))
    first = sizes["projector/linear1/kernel"]
    encoder = flops_of(config).clip - 63 * (6 * bridge - 2 * first)
    assert encoder == pytest.approx(54e9 + 3.6e9, rel=0.01)
    whole = training_flops(config, 100, 10, 2)
    assert whole == pytest.approx(
        sum(x * n for x, n in zip(flops_of(config), (100, 10, 2), strict=True))
    )


def test_operations_follow_what_is_stored_and_what_learns():
    config = TinyMUConfig()
    stored, encoded = (flops_of(config, store) for store in ("embeddings", "log_mel"))
    assert stored.clip < 0.05 * encoded.clip
    assert stored.slot == encoded.slot
    all_learn = flops_of(config, frozen="nothing")
    assert all_learn.clip == pytest.approx(3 * (encoded.clip - stored.clip), rel=0.02)
    lora = replace(config, decoder=replace(config.decoder, lora=LoraConfig()))
    rank = flops_of(lora, frozen=r"encoder/.*|decoder/(?!.*/lora/).*", seen=0)
    assert 4 / 6 < rank.slot / flops_of(config, seen=0).slot < 4 / 6 * 1.06
    assert rank.label == flops_of(config).label * 4 / 6


def test_operations_of_the_decoder_are_those_that_xla_counts(golden_checkpoint):
    config, slots = golden_checkpoint.config, 64
    sizes, model = config.decoder, SmolLM2(config.decoder)
    params = unstack(golden_checkpoint.params["decoder"], param_axes(sizes))

    def scores(params, x):
        positions, mask = jnp.zeros(x.shape[:2], jnp.int32), jnp.ones((1, slots, slots), bool)
        hidden = model.apply({"params": params}, x, positions, mask)[0]
        return model.apply({"params": params}, hidden, method="logits")

    x = jnp.zeros((1, slots, sizes.width))
    counted = jax.jit(scores).lower(params, x).compile().cost_analysis()["flops"]
    cost = flops_of(config, seen=slots)
    assert counted == pytest.approx(slots * (cost.slot + cost.label) / 3, rel=0.1)


SMALL = SelfSupervisedConfig(
    encoder=MatpacConfig(width=64, depth=1, num_heads=2, num_frames=160),
    predictor=PredictorConfig(width=32, depth=1, num_heads=2, hypotheses=3),
    class_head=ClassHeadConfig(96, 32, 128),
)


def test_operations_of_pre_training_are_those_that_xla_counts():
    # Wide enough that sums and exponentials, which are left out, weigh little.
    config = SelfSupervisedConfig(
        replace(SMALL.encoder, width=256), replace(SMALL.predictor, width=128), SMALL.class_head
    )
    params, teaching = split_teacher(init_student_and_teacher(config, 0))
    crops, order = jnp.zeros((4, 160, 80)), jnp.tile(jnp.arange(50), (4, 1))

    def lost(params):
        seen = ssl_loss(params, teaching, crops, order, jnp.int32(3), config)
        return seen.prediction_loss.sum() + seen.class_loss.sum()

    counted = jax.jit(jax.grad(lost)).lower(params).compile().cost_analysis()["flops"]
    assert counted == pytest.approx(4 * pretraining_flops(config), rel=0.06)


def test_copies_exchange_sums_alone():
    mesh = make_mesh(MeshConfig(8, 1, 1), jax.devices()[:8])
    program = read_program(lower_pretraining(SMALL, mesh, 8, 4).compile().as_text())
    assert set(collectives(program)) == {"all-reduce"}


def test_no_matrix_is_copied_that_a_step_reads_and_overwrites():
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    text = lower_pretraining(SMALL, mesh, 1, 4).compile().as_text()
    assert "%state_params__encoder____transformer__" in text
    assert "%state_aux_state_teacher__encoder____transformer__" in text
    copied = re.findall(r"= f32\[(?:\d+,)*\d+\]\S* copy\(%(state\w+kernel)", text)
    assert copied == []


# --- chips and forecasts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tera"),
    [("TPU v5 lite", 197), ("TPU v6 lite", 918), ("TPU v5", 459), ("NVIDIA H100 80GB HBM3", 989)],
)
def test_chips_are_found_by_the_name_that_jax_gives_them(kind, tera):
    assert chip_of(kind).flops == tera * 1e12


def test_an_unknown_chip_is_not_guessed_at():
    assert chip_of("TPU v5 litepod") is None
    assert all(min(chip[1:]) > 0 for chip in CHIPS.values())


def test_a_step_takes_what_it_computes_or_reads_and_what_it_sends():
    chip = chip_of("TPU v5 lite")
    actual = forecast.step_seconds(chip, 197e9, 819e6 * 3, 200e6)
    expected = {"compute": 1e-3, "memory": 3e-3, "links": 1e-3, "exposed": 1e-3, "step": 4e-3}
    assert actual == pytest.approx(expected)
    # What is sent while the chip computes counts only if it takes longer.
    half = forecast.step_seconds(chip, 197e9, 819e6 * 3, 200e6, overlapped=100e6)
    assert half == pytest.approx(expected | {"exposed": 0.5e-3, "step": 3.5e-3})
    long = forecast.step_seconds(chip, 197e9, 819e6, 1000e6, overlapped=1000e6)
    assert long["step"] == pytest.approx(5e-3)


def test_a_block_holds_what_its_scarcest_part_allows():
    work = forecast.block_work(PackingConfig())
    assert work["slots"] == pytest.approx(0.97 * 8192)
    assert 150 < work["questions"] < 160
    assert forecast.block_work(PackingConfig(max_labels=200))["questions"] == 10
    assert forecast.block_work(PackingConfig(max_clips=1))["questions"] == 7


def test_more_is_computed_than_needed():
    needed, computed = forecast.block_flops(forecast.pod_config(), PackingConfig())
    assert 1.1 < computed / needed < 1.5


def test_copies_of_the_model_are_the_default():
    assert forecast.default_mesh(256) == MeshConfig(256, 1, 1)


def test_stderr_of_libraries_is_seen():
    lines = []
    with pod_program.captured_stderr(lines):
        os.write(2, b"Involuntary full rematerialization of %x\n")
    assert lines == ["Involuntary full rematerialization of %x"]


class Lowered:
    """Stands for a lowered step: writes or raises something when it is compiled."""

    def __init__(self, says="", error=None):
        self.says, self.error = says, error

    def compile(self):
        os.write(2, self.says.encode())
        if self.error:
            raise self.error
        return "compiled"


def test_a_lost_sharding_and_too_little_memory_are_refused():
    compile_step = pod_program.compile_step
    assert compile_step(Lowered("all is well"), "x") == "compiled"
    says = "W spmd.cc] [SPMD] Involuntary full rematerialization. For %gather\n"
    message = refusal(compile_step, Lowered(says), "v5e:4x4")
    assert message.startswith("v5e:4x4: ")
    assert "%gather" in message
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 20G exceeds 15G\nmore\nlines")
    message = refusal(compile_step, Lowered(error=full), "v5e:4x4")
    assert "20G exceeds 15G; give fewer --blocks-per-chip" in message


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--mesh", "16"], "three numbers"),
        (["--mesh", "16,1,x"], "three numbers"),
        (["--blocks-per-chip", "0"], "--blocks-per-chip 0"),
        (["--blocks-per-chip", "3", "--grad-accum-steps", "2"], "--grad-accum-steps 2"),
        (["--pretrain", "--rows", "4"], "give --batch with --pretrain"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(options, named, capsys):
    with pytest.raises(SystemExit) as end:
        command().main(options)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


# --- a real pod ----------------------------------------------------------------------------------


def compile_on_its_own(folder, *options):
    """Returns what the command says and finds, in a process that sees libtpu."""
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    inputs = filter(None, [os.environ.get("TINYMU_LIBTPU")])
    options = [*options, "--json", folder / "found.json"]
    result = subprocess.run(
        [sys.executable, COMMAND, *map(str, options)],
        env=clean | {"PYTHONPATH": os.pathsep.join([str(ROOT), *inputs])},
        capture_output=True,
        text=True,
        check=False,
    )
    # What lost its sharding ends the command.
    assert result.returncode == 0, result.stderr
    (actual,) = json.loads((folder / "found.json").read_text())
    assert actual["memory"]["total"] < 0.75 * actual["memory"]["chip"]
    assert set(actual["collectives"]) == {"all-reduce"}
    return result.stdout, actual


on_linux = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="libtpu is for Linux x86_64"
)
with_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None and "TINYMU_LIBTPU" not in os.environ,
    reason="needs libtpu: launch/test.sh puts it beside the environment (TINYMU_LIBTPU)",
)


@pytest.mark.slow
@pytest.mark.tpu_aot
@on_linux
@with_libtpu
def test_the_full_size_step_compiles_for_sixteen_chips_and_fits(tmp_path):
    said, actual = compile_on_its_own(tmp_path, "--topology", "v5e:4x4")
    assert "16 x TPU v5e, mesh data=16 fsdp=1 tensor=1" in said
    # Sums of gradients and of the loss, and nothing else: every weight once, the table of words,
    # which is read at both ends, twice.
    sizes = {path: math.prod(x.shape) for path, x in flatten(expected_shapes(TinyMUConfig()))}
    learnt = sum(n for path, n in sizes.items() if not path.startswith("encoder/"))
    learnt += sizes["decoder/embed_tokens/embedding"]
    sums = actual["collectives"]["all-reduce"]
    assert sums["size"] == pytest.approx(4 * learnt, rel=1e-3)
    assert sums["overlapped"] > 0.5 * sums["sent"]
    # Twelve layers of the frozen encoder; thirty of the decoder, forward and backward.
    assert actual["kernel_calls"] == 12 + 2 * 30
    assert actual["mfu"] > 0.65


@pytest.mark.slow
@pytest.mark.tpu_aot
@on_linux
@with_libtpu
def test_the_step_of_pre_training_compiles_for_sixty_four_chips_and_fits(tmp_path):
    _, actual = compile_on_its_own(tmp_path, "--pretrain", "--topology", "v5e:8x8")
    # Every weight's gradient once; what is told of a step is small beside it.
    params, _ = split_teacher(expected_shapes(SelfSupervisedConfig()))
    still = ("pos_embed", "log_mel", "single")
    learnt = sum(
        math.prod(leaf.shape)
        for path, leaf in flatten(params)
        if not any(name in path for name in still)
    )
    assert actual["collectives"]["all-reduce"]["size"] == pytest.approx(4 * learnt, rel=0.01)
    # Student and teacher of twelve layers, the predictor; the teacher forward only.
    depth = SelfSupervisedConfig().predictor.depth
    assert actual["kernel_calls"] == 12 + 2 * 12 + 2 * depth
