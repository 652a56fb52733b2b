#!/bin/sh
# Make the secrets that docker-compose.yml needs, at random, where they are not there yet:
#
#   deploy/secrets/s3.env    keys of the S3 server, for it and for the node (profile s3)
#   deploy/secrets/node.env  the token that split roles show one another (profile split); it is
#                            written empty, for only the catalog can make one: docs/guides/deploy.md
#
# Usage: sh deploy/secrets.sh [folder, default deploy/secrets]
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"

hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

if [ ! -e "$folder/s3.env" ]; then
  key=$(hex 10) secret=$(hex 20)
  {
    echo "S3_ACCESS_KEY=$key"
    echo "S3_SECRET_KEY=$secret"
    echo "S3_CREDENTIALS='{\"access_key_id\":\"$key\",\"secret_access_key\":\"$secret\"}'"
  } >"$folder/s3.env"
  echo "made $folder/s3.env"
fi
if [ ! -e "$folder/node.env" ]; then
  echo "NODE_TOKEN=" >"$folder/node.env"
  echo "made $folder/node.env; put a token into it before the profile split is started"
fi
