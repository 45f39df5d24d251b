#!/usr/bin/env bash
# Checks and measures on a machine with an NVIDIA GPU, from a bare checkout: nothing is installed
# and no network is needed. Python 3.11 or later, torch with CUDA and NVRTC, pytest and numpy.
#
#   benchmarks/on_gpu.sh OUT [PART...]     parts: compile tests kernels train lego sanitizer
#
# Every part has its own time limit, and a part that fails or is missing something does not stop
# the others. OUT receives at most eight flat files; a short table is printed last.
#
#   LUMIGRAPH_ON_GPU_SECONDS   limit of the whole (520)
#   LUMIGRAPH_TEST_DATA        folder that holds nerf_synthetic_lego, for the part lego
#   .whl/                      wheels of missing packages, in the checkout (optional)
set -uo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0"
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
parts=" ${*:-compile tests kernels train lego sanitizer} "
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limit=${LUMIGRAPH_ON_GPU_SECONDS:-520}
log="$out/on_gpu.log"
: >"$log"
SECONDS=0

# ---- the package without an installation

say() { printf '%s\n' "$*" | tee -a "$log"; }

mkdir "$work/site" "$work/wheels"
if compgen -G ".whl/*.whl" >/dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$work/wheels" .whl/*.whl \
    >>"$log" 2>&1 || say "some wheels of .whl/ could not be installed, see on_gpu.log"
fi
python3 benchmarks/link_package.py "$work/site" >>"$log" 2>&1 || say "linking the package failed"
export PYTHONPATH="$work/site:$work/wheels${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export LUMIGRAPH_CACHE="$work/cache"
unset LUMIGRAPH_BACKEND

python3 - <<'PYTHON' 2>&1 | tee -a "$log"
import importlib.util, os, platform
wanted = {
    "needed": "numpy torch pytest",
    "for training and evaluation": "PIL imageio yaml safetensors torchmetrics",
    "for data": "plyfile scipy",
    "for commands": "tyro rich",
    "for reports": "matplotlib jinja2",
    "peers": "nerfacc tinycudann",
}
print("python", platform.python_version(), "cores", os.cpu_count())
for use, names in wanted.items():
    missing = [name for name in names.split() if importlib.util.find_spec(name) is None]
    if missing:
        print(f"missing {use}: {', '.join(missing)}")
if importlib.util.find_spec("torch"):
    import torch
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print("torch", torch.__version__, "CUDA", torch.version.cuda, gpu)
import lumigraph
print("lumigraph", lumigraph.__version__, "from a linked checkout")
PYTHON
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv \
  >>"$log" 2>&1

# ---- parts

declare -a states=()

# part NAME SECONDS LOG COMMAND...: runs the command within its own and the whole time limit
part() {
  local name=$1 most=$2 file=$3 left=$((limit - SECONDS)) begin=$SECONDS code state
  shift 3
  [[ $parts == *" $name "* ]] || return 0
  if [ "$left" -lt 10 ]; then
    states+=("$name: left out, no time")
    return 0
  fi
  [ "$most" -lt "$left" ] || most=$left
  say "== $name (at most $most s)"
  timeout -s INT -k 10 "$most" "$@" >"$work/part.log" 2>&1
  code=$?
  cat "$work/part.log" >>"$file"
  tail -n 60 "$work/part.log"
  case $code in
    0) state="done" ;;
    77) state="skipped" ;;
    124 | 137) state="stopped at its limit" ;;
    *) state="FAILED with exit code $code" ;;
  esac
  states+=("$name: $state, $((SECONDS - begin)) s")
  say "== $name: $state, $((SECONDS - begin)) s"
}

have_gpu() { python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null; }

# bench SUBJECT: the command, or where its argument library is missing the function behind it
bench() {
  if ! have_gpu; then
    echo "bench $1: no GPU here, skipped"
    return 77
  fi
  if python3 -c "import tyro, rich" 2>/dev/null; then
    python3 -m lumigraph bench "$1" --device cuda --out "$work/bench"
  else
    python3 -c "import lumigraph.bench as b; from pathlib import Path; \
b.bench_$1('cuda', out=Path('$work/bench'), on_message=print)"
  fi
  local code=$?
  cp "$work/bench/$1-cuda.json" "$out/" 2>/dev/null
  cat "$work/bench/$1-cuda.md" 2>/dev/null
  return $code
}

tests() {
  have_gpu || { echo "tests: no GPU here, skipped"; return 77; }
  python3 -m pytest -m gpu tests -q -p no:cacheprovider --continue-on-collection-errors \
    --durations=8 --tb=short
}

lego() {
  local data="${LUMIGRAPH_TEST_DATA:-}/nerf_synthetic_lego"
  if [ ! -d "$data" ]; then
    echo "lego: LUMIGRAPH_TEST_DATA names no folder with nerf_synthetic_lego, skipped"
    return 77
  fi
  python3 benchmarks/lego_gpu.py "$data" --out "$out/lego.json" --within "$1"
}

sanitizer() {
  have_gpu || { echo "sanitizer: no GPU here, skipped"; return 77; }
  local tool
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || {
    echo "sanitizer: compute-sanitizer is not installed, skipped"
    return 77
  }
  # without torch's own allocator every tensor has bounds that the tool knows
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool memcheck --error-exitcode 9 \
    python3 benchmarks/small_operations.py
}

export work out
export -f have_gpu bench tests lego sanitizer

part compile 70 "$log" python3 benchmarks/compile_times.py --out "$out/compile.json"
part tests 150 "$out/tests.log" bash -c tests
part kernels 130 "$log" bash -c "bench kernels"
part train 90 "$log" bash -c "bench train"
lego_seconds=$((limit - SECONDS - 15))
[ "$lego_seconds" -lt 240 ] || lego_seconds=240
part lego "$((lego_seconds + 5))" "$log" bash -c "lego $lego_seconds"
part sanitizer 90 "$out/sanitizer.log" bash -c sanitizer

# ---- summary

say ""
say "== summary after $SECONDS s"
for state in "${states[@]:-}"; do say "$state"; done
python3 benchmarks/summarize_gpu.py "$out" 2>&1 | tee -a "$log"
