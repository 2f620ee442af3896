#!/bin/bash
# Prepare a ZooKeeper container as documented: root gives the data to the user zookeeper and
# becomes it; ZOO_* variables become zoo.cfg and myid unless these exist already.
set -euo pipefail

if [[ ${1:-} == zkServer.sh && $(id -u) -eq 0 ]]; then
    for folder in "$ZOO_DATA_DIR" "$ZOO_DATA_LOG_DIR" "$ZOO_LOG_DIR"; do
        chown -R zookeeper "$folder"
    done
    exec setpriv --reuid zookeeper --regid zookeeper --init-groups "$0" "$@"
fi

if [[ ! -e $ZOO_CONF_DIR/zoo.cfg ]]; then
    cat >"$ZOO_CONF_DIR/zoo.cfg" <<-PROPERTIES
	dataDir=$ZOO_DATA_DIR
	dataLogDir=$ZOO_DATA_LOG_DIR
	tickTime=$ZOO_TICK_TIME
	initLimit=$ZOO_INIT_LIMIT
	syncLimit=$ZOO_SYNC_LIMIT
	maxClientCnxns=$ZOO_MAX_CLIENT_CNXNS
	standaloneEnabled=$ZOO_STANDALONE_ENABLED
	admin.enableServer=$ZOO_ADMINSERVER_ENABLED
	autopurge.purgeInterval=$ZOO_AUTOPURGE_PURGEINTERVAL
	autopurge.snapRetainCount=$ZOO_AUTOPURGE_SNAPRETAINCOUNT
	${ZOO_4LW_COMMANDS_WHITELIST:+4lw.commands.whitelist=$ZOO_4LW_COMMANDS_WHITELIST}
	PROPERTIES
    # Both are lists: their words become lines.
    printf '%s\n' ${ZOO_SERVERS:-server.1=localhost:2888:3888;2181} ${ZOO_CFG_EXTRA:-} \
        >>"$ZOO_CONF_DIR/zoo.cfg"
fi
[[ -e $ZOO_DATA_DIR/myid ]] || echo "${ZOO_MY_ID:-1}" >"$ZOO_DATA_DIR/myid"
exec "$@"
