#!/usr/bin/env bash
# Make .venv exactly as requirements.lock says. Needs python3.11 and nothing else: no compiler, no
# other installer; where Debian left the venv module out, it is fetched by apt (as root) or named.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
stamp=.venv/.setup-done

if ! command -v "$python" >/dev/null; then
  echo "setup: $python is not installed; on Debian 12: apt-get install python3 python3-venv" >&2
  exit 69
fi
if [ ! -x .venv/bin/python ]; then
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ]; then
      echo "setup: $python has no venv module; run: sudo apt-get install python3-venv" >&2
      exit 69
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      python3-venv python3.11-venv </dev/null >/dev/null
  fi
  echo "setup: making .venv"
  "$python" -m venv .venv
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
echo "setup: installing what requirements.lock names (hashes checked)"
.venv/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements.lock
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
touch "$stamp"
echo "setup: done, .venv/bin/lakehouse is there"
