#!/bin/bash
# Run a class of Kafka's with the variables its own scripts know: KAFKA_HEAP_OPTS, KAFKA_OPTS,
# KAFKA_JVM_PERFORMANCE_OPTS, KAFKA_JMX_OPTS, JMX_PORT. KAFKA_LIBS says where the jars are.
set -euo pipefail
libs=${KAFKA_LIBS:-/opt/kafka/libs}
options=(${KAFKA_HEAP_OPTS:--Xmx256M})
options+=(${KAFKA_JVM_PERFORMANCE_OPTS:--server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true})
options+=(${KAFKA_JMX_OPTS:-})
[[ -z ${JMX_PORT:-} ]] || options+=("-Dcom.sun.management.jmxremote.port=$JMX_PORT")
[[ -n ${KAFKA_LOG_TO_STDOUT:-} ]] || options+=(
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.logFile=System.err
)
options+=(${KAFKA_OPTS:-})
exec java "${options[@]}" -cp "$libs/*:$libs${CLASSPATH:+:$CLASSPATH}" "$@"
