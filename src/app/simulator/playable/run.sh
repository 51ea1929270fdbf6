#!/bin/sh
# Starts the backend; the worker runs this file with `--addr 0.0.0.0:<port>` and nothing else.
# PYTHON names the interpreter (default python3). `exec` makes the backend the process the worker
# signals and watches.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
if [ -d "$here/lib" ]; then
    # A packed backend brings its libraries; -S keeps those of this machine out.
    export PYTHONPATH="$here/lib"
    exec "${PYTHON:-python3}" -S "$here/backend.py" "$@"
fi
exec "${PYTHON:-python3}" "$here/backend.py" "$@"
