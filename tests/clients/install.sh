#!/usr/bin/env bash
# Installs the MQTT clients of other languages that the tests run as devices, at the versions that stand beside this
# script, below the folder it is given: paho-mqtt in FOLDER/python, MQTT.js in FOLDER/node. Done already: nothing happens.
# Needs python3 with venv, node and npm; tests/run.sh installs those.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

wanted=$(cat "$here/requirements.txt" "$here/package-lock.json" | cksum)
if [[ -f $folder/installed && $(<"$folder/installed") == "$wanted" ]]; then exit 0; fi

rm -rf "$folder/python" "$folder/node" "$folder/installed"
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
mkdir "$folder/node"
cp "$here/package.json" "$here/package-lock.json" "$folder/node/"
(cd "$folder/node" && npm ci --no-audit --no-fund --loglevel=error)
echo "$wanted" >"$folder/installed"
