#!/bin/bash
# Run ZooKeeper in the foreground, or tell how the running one does. Knows JVMFLAGS,
# SERVER_JVMFLAGS, CLIENT_JVMFLAGS and ZK_SERVER_HEAP (MB).
set -euo pipefail
config=$ZOOCFGDIR/zoo.cfg
libs=$(dirname "$(readlink -f "$0")")/../lib
case ${1:-} in
    start-foreground)
        # Split into words on purpose: each holds several options.
        exec java "-Xmx${ZK_SERVER_HEAP:-1000}m" ${SERVER_JVMFLAGS:-} ${JVMFLAGS:-} \
            -cp "$libs/*:$libs" org.apache.zookeeper.server.quorum.QuorumPeerMain "$config"
        ;;
    status)
        port=$(sed -nE 's/^clientPort=([0-9]+).*/\1/p; s/^server\..*;(.*:)?([0-9]+)$/\2/p' "$config" | head -n 1)
        java ${CLIENT_JVMFLAGS:-} ${JVMFLAGS:-} -cp "$libs/*:$libs" \
            -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
            org.apache.zookeeper.client.FourLetterWordMain localhost "$port" srvr | grep '^Mode'
        ;;
    *)
        echo "usage: zkServer.sh start-foreground|status" >&2
        exit 2
        ;;
esac
