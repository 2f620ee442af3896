#!/bin/sh
# Started by root, give everything under /mosquitto to the broker's user; a mount that refuses
# (one that is read-only) stays as it is. The broker leaves root by itself.
set -eu
if [ "$(id -u)" -eq 0 ]; then
    find /mosquitto ! -user mosquitto -exec chown -h mosquitto:mosquitto {} + || :
fi
exec "$@"
