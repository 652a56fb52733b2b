#!/usr/bin/env bash
# The real S3 server of the tests: Ceph's radosgw with one monitor and one storage daemon (61 MB).
set -euo pipefail
missing=0
for program in radosgw radosgw-admin ceph-mon ceph-osd monmaptool ceph; do
  command -v "$program" >/dev/null || missing=1
done
[ "$missing" = 1 ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "test-s3: a real S3 server is missing; as root, on Debian:" >&2
  echo "  apt-get install --no-install-recommends radosgw ceph-mon ceph-osd" >&2
  exit 69
fi
echo "test-s3: installing radosgw, ceph-mon and ceph-osd"
apt-get update -qq </dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  radosgw ceph-mon ceph-osd </dev/null >/dev/null
