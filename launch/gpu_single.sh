#!/usr/bin/env bash
# Trains on all GPUs of one machine. Makes its own environment.
#
#   launch/gpu_single.sh --config configs/sft_tinymu_t4.py --data.train data/train ...
#                                   any options of `tinymu train`; add --resume to continue a run
#   launch/gpu_single.sh pretrain --config configs/pretrain_music.py ...    or train-tagger
#   launch/gpu_single.sh --install       makes the environment only, for launch/slurm_gpu.sbatch
#   launch/gpu_single.sh --dry-run ...   prints the commands only
#
# One process uses all GPUs; --mesh.data, --mesh.fsdp and --mesh.tensor set the mesh
# (default: data parallel).
#
# CUDA                   cuda12 or cuda13 (default: the newest that driver and GPUs support)
# CUDA_VISIBLE_DEVICES   which GPUs (default: all), as in 0,1
# TINYMU_VENV, PYTHON    see launch/environment.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_if_asked "$@"
dry="" install=""
case "${1:-}" in
--dry-run) dry=1 && shift ;;
esac
[ "${1:-}" != --install ] || { install=1 && shift; }
here="$PWD"
cd "$(dirname "$0")/.."

# CUDA 13 needs driver 580 and does not support GPUs before Turing (7.5), such as V100.
cuda_of_machine() {
  local found driver capability
  if ! found="$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null)"; then
    [ -n "$install$dry" ] || fail "nvidia-smi finds no GPU; install NVIDIA's driver, or train elsewhere"
    echo cuda12 # --install on a login node without a GPU
    return
  fi
  driver="$(echo "$found" | head -n 1 | cut -d. -f1)"
  capability="$(echo "$found" | cut -d, -f2 | tr -d ' .' | sort -n | head -n 1)"
  if [ "$driver" -ge 580 ] && [ "$capability" -ge 75 ]; then echo cuda13; else echo cuda12; fi
}
cuda="${CUDA:-$(cuda_of_machine)}"
case "$cuda" in
cuda12 | cuda13) ;;
*) fail "CUDA=$cuda: give cuda12 or cuda13" ;;
esac

command=train
case "${1:-}" in
train | pretrain | train-tagger) command="$1" && shift ;;
esac
# jax preallocates 75 % of a GPU's memory, and in many versions never takes more. Lower this if other
# programs use the GPU.
export XLA_CLIENT_MEM_FRACTION="${XLA_CLIENT_MEM_FRACTION:-${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}}"
unset XLA_PYTHON_CLIENT_MEM_FRACTION # older name; jax refuses both together
run=(tinymu "$command" "$@")

if [ -n "$dry" ]; then
  echo "install into ${TINYMU_VENV:-.venv} with $cuda"
  [ -n "$install" ] || { echo "XLA_CLIENT_MEM_FRACTION=$XLA_CLIENT_MEM_FRACTION" && printf '%q ' "${run[@]}" && echo; }
  exit 0
fi
use_environment "$cuda"
[ -z "$install" ] || { echo "${TINYMU_VENV:-.venv} is ready, with $cuda" && exit 0; }
cd "$here"
exec "${run[@]}"
