#!/usr/bin/env bash
# All that has to be seen on a GPU, unattended, in at most eight minutes on one H200: the tests marked gpu, then
# training steps and generation beside transformers.
#
#   bench/on_gpu.sh          run; results go to $OUT, or bench/results/gpu where that is not set
#   bench/on_gpu.sh --cpu    the same steps on a machine without a GPU, at shape S, to try the script itself
#   bench/on_gpu.sh wheels   before that, where there is a network: fill .wheels/ with what such a machine lacks
#
# Nothing is downloaded and nothing installed: the package runs from this tree, with the wheels unpacked beside it.
# A step that fails or runs out of time is told in the table at the end, and the others go on.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
wheels=.wheels
# What the package imports for training and generation, beside torch, numpy, typer and pytest.
needed="pydantic pydantic-core annotated-types typing-inspection typing-extensions safetensors sentencepiece rich"

if [ "${1:-}" = wheels ]; then
    pinned=""
    for name in $needed; do
        pinned="$pinned $(grep -iE "^${name//-/[-_]}==" constraints.txt || echo "$name")"
    done
    # shellcheck disable=SC2086  # names are words
    exec "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest $wheels $pinned
fi

limit=480 device=cuda out=${OUT:-bench/results/gpu}
if [ "${1:-}" = --cpu ]; then
    limit=1800 device=cpu out=${OUT:-out/on_gpu_cpu}
fi
mkdir -p "$out" && out=$(cd "$out" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
missing=""
for name in pydantic safetensors sentencepiece rich; do
    "$python" -c "import $name" 2>/dev/null || missing="$missing $name"
done
if [ -n "$missing" ]; then
    if ! ls $wheels/*.whl >/dev/null 2>&1; then
        echo "missing here:$missing; run bench/on_gpu.sh wheels where there is a network, and bring $wheels/" >&2
        exit 1
    fi
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/site" $wheels/*.whl || exit 1
fi
export PYTHONPATH="$PWD/src:$PWD/bench:$scratch/site" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PUNA_TEST_DEVICE=$device
export PUNA_BENCH_RESULTS=$out XDG_CACHE_HOME=$scratch/cache

"$python" - <<'PYTHON' | tee "$out/machine.txt"
import torch
from puna.run import machine
print(machine.describe(), machine.versions())
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
PYTHON
if [ $device = cuda ] && ! grep -q NVIDIA "$out/machine.txt"; then
    echo "torch finds no GPU here" >&2
    exit 1
fi

told="" failed=0
# step NAME SECONDS COMMAND...: run a command with a bound of its own, within what is left of the whole.
step() {
    local name=$1 most=$2 started=$SECONDS left
    shift 2
    left=$((limit - SECONDS))
    if [ $left -lt 10 ]; then
        told="$told$name: no time was left"$'\n' failed=1
        return
    fi
    timeout --kill-after=5 $((most < left ? most : left)) "$@" >"$out/$name.log" 2>&1
    local status=$?
    tail -n 25 "$out/$name.log"
    case $status in
        0) told="$told$name: passed in $((SECONDS - started)) s"$'\n' ;;
        124 | 137) told="$told$name: stopped after $((SECONDS - started)) s"$'\n' failed=1 ;;
        *) told="$told$name: FAILED ($status) after $((SECONDS - started)) s, see $name.log"$'\n' failed=1 ;;
    esac
}

if [ $device = cuda ]; then
    step tests 150 "$python" -m pytest -q -p no:cacheprovider -o filterwarnings=default -m gpu tests/train/test_gpu.py
    step train_step_S 80 "$python" bench/train_step.py --shape S --rounds 5 --without-memory
    step train_step_M 80 "$python" bench/train_step.py --shape M --rounds 5 --without-memory
    step train_step_1B 120 "$python" bench/train_step.py --shape 1B --rounds 5 --without-memory
    step generate_M 60 "$python" bench/generate.py --shape M --rounds 3
    step generate_1B 60 "$python" bench/generate.py --shape 1B --rounds 3
else
    step tests 600 "$python" -m pytest -q -p no:cacheprovider -o filterwarnings=default -m gpu tests/train/test_gpu.py
    step train_step_S 600 "$python" bench/train_step.py --shape S --rounds 1 --without-compiled --without-memory
    step generate_S 300 "$python" bench/generate.py --shape S --rows 2 --rounds 1
fi
printf '%s' "$told" | tee "$out/summary.txt"
exit $failed
