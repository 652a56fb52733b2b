#!/usr/bin/env bash
# Make .venv exactly as the locks say. Needs python3.11 with its headers and a C++ compiler, for the
# one library that comes as a source (hnswlib); where Debian left out one of these or the venv
# module, it is fetched by apt (as root) or named. No other installer.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
stamp=.venv/.setup-done

if ! command -v "$python" >/dev/null; then
  echo "setup: $python is not installed; on Debian 12: apt-get install python3 python3-venv" >&2
  exit 69
fi

missing=()
if [ ! -x .venv/bin/python ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv python3.11-venv)
fi
command -v c++ >/dev/null || missing+=(g++)
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing+=(python3-dev)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: not all is here that it needs; run: sudo apt-get install ${missing[*]}" >&2
    exit 69
  fi
  echo "setup: installing ${missing[*]} by apt"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" </dev/null >/dev/null
fi

if [ ! -x .venv/bin/python ]; then
  echo "setup: making .venv"
  "$python" -m venv .venv
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# The locks name everything, so nothing is resolved: what they do not name is not installed.
pip() { .venv/bin/python -m pip "$1" --quiet --no-deps "${@:2}"; }

# What compiles hnswlib comes first: the compiler then works while the rest is fetched.
echo "setup: compiling hnswlib beside the rest (half a minute, once)"
builders=$(mktemp)
wheels=$(mktemp -d)
trap 'rm -rf "$builders" "$wheels"' EXIT
awk '/^[a-z]/ { wanted = /^(numpy|pybind11|setuptools)==/ } wanted' requirements.lock >"$builders"
pip install --require-hashes --only-binary :all: -r "$builders"
pip wheel --require-hashes --no-build-isolation --wheel-dir "$wheels" -r deploy/sources.lock \
  >"$wheels/log" 2>&1 &
compiling=$!

echo "setup: installing what requirements.lock names (hashes checked)"
progress='/^(Collecting|Requirement already)/ { if (++n % 40 == 0) print "setup: " n " of " all }
/^Installing collected/ { print "setup: all are fetched, unpacking them" } { fflush() }'
pip install --verbose --require-hashes --only-binary :all: -r requirements.lock |
  awk -v all="$(grep -c '==' requirements.lock)" "$progress" || { kill $compiling 2>/dev/null; exit 1; }
wait $compiling || { cat "$wheels/log" >&2; echo "setup: hnswlib did not compile" >&2; exit 70; }
pip install --no-index "$wheels"/*.whl
pip install --no-build-isolation --no-index -e .
touch "$stamp"
echo "setup: done, .venv/bin/lakehouse is there"
