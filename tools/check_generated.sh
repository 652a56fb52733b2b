#!/usr/bin/env bash
# What is generated and committed must be what the generators make now; says what differs.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python=.venv/bin/python

"$python" tools/make_proto.py "$fresh"
diff -r -x '__init__.py*' -x __pycache__ "$fresh/lakehouse/v1" services/lakehouse/v1 ||
  { echo "check: services/lakehouse/v1 is not what protos/ make; run: make proto" >&2; exit 1; }

"$python" tools/make_docs.py "$fresh/api"
for page in "$fresh"/api/*.md; do
  diff "docs/api/$(basename "$page")" "$page" ||
    { echo "check: docs/api is not what the code says; run: make docs" >&2; exit 1; }
done

"$python" tools/make_demo_data.py "$fresh/demo"
for file in "$fresh"/demo/*; do
  cmp "$file" "services/lakehouse/cli/demo/$(basename "$file")" ||
    { echo "check: the demo's data is not what tools/make_demo_data.py makes" >&2; exit 1; }
done
