#!/bin/bash
set -e
for script in /docker-entrypoint.d/*; do . "$script"; done
echo "run: $*"
