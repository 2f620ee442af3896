#!/bin/bash
# Run the broker of a properties file; its heap is 1 GiB unless KAFKA_HEAP_OPTS says otherwise.
set -euo pipefail
export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} KAFKA_LOG_TO_STDOUT=1
exec "$(dirname "$(readlink -f "$0")")/kafka-run-class.sh" kafka.Kafka "$@"
