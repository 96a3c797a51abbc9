#!/usr/bin/env bash
# Trains a small TinyMU on music of real instruments, from the material to a model. Run it again
# after an interruption: finished stages are passed over, others continue.
#
#   launch/train_music_nano.sh OUT MATERIAL SOUNDFONT...     OUT/tune is the model
#
# MATERIAL is a folder of free recordings with an index.csv; see docs/data.md. FluidSynth must be
# installed. CLIPS=8000 TEXTS=12000 STEPS="1800 1500 500 1000" are the numbers of rendered clips, of
# described clips, and of training steps of encoder, decoder, projector and both.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_if_asked "$@"
if [ $# -lt 3 ]; then
  echo "error: name a folder to write, a folder of recordings, and soundfonts (see --help)" >&2
  exit 2
fi
out="$(mkdir -p "$1" && cd "$1" && pwd)"
material="$(realpath "$2")"
soundfonts=()
for path in "${@:3}"; do soundfonts+=("$(realpath "$path")"); done
cd "$(dirname "$0")/.."
use_environment render
read -r tag_steps words_steps join_steps tune_steps <<<"${STEPS:-1800 1500 500 1000}"

train() { # command, stage, options
  [ -e "$out/$2/model/config.json" ] ||
    tinymu "$1" --resume --output "$out/$2" "${@:3}"
}
questions() { # name, table
  [ -d "$out/questions/$1" ] && return
  rm -rf "$out/questions/$1.part" # of a build that was killed
  tinymu data build --user-table "$out/clips/$2.csv" --tokenizer none \
    --output "$out/questions/$1.part"
  mv "$out/questions/$1.part" "$out/questions/$1"
}

tinymu data render "$out/clips" --material "$material" --soundfonts "${soundfonts[@]}" \
  --clips "${CLIPS:-8000}" --texts "${TEXTS:-12000}"
questions clips annotations
questions texts texts
clip_list="$out/questions/clips/lists/annotations.json"
text_list="$out/questions/texts/lists/texts.json"
[ -e "$out/tokenizer.json" ] ||
  tinymu data train-tokenizer "$text_list" "$clip_list" --output "$out/tokenizer.json"
tinymu data prepare --audio "$out/clips/clips" --features waveform --output "$out/waveforms"
tinymu data prepare --lists "$text_list" --audio "$out/clips/texts" --features text \
  --tokenizer "$out/tokenizer.json" --output "$out/descriptions"
train train-tagger tag --config tag_music --steps "$tag_steps" --data.train "$out/waveforms" \
  --data.labels "$out/clips/labels.csv"
train train words --config music_words --steps "$words_steps" --data.train "$out/descriptions" \
  --init.tokenizer "$out/tokenizer.json"
tinymu data prepare --lists "$clip_list" --audio "$out/clips/clips" --features embeddings \
  --checkpoint "$out/tag" --tokenizer "$out/tokenizer.json" --output "$out/embeddings"
train train join --config music_join --steps "$join_steps" --data.train "$out/embeddings" \
  --init.encoder "$out/tag" --init.decoder "$out/words"
train train tune --config music_tune --steps "$tune_steps" --data.train "$out/embeddings" \
  --init.checkpoint "$out/join"
echo "done: tinymu ask song.mp3 --checkpoint $out/tune --prompt 'Which instruments are playing?'"
