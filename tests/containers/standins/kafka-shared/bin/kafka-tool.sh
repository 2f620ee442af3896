#!/bin/bash
# Run the tool this script is called as: kafka-topics.sh and kafka-topics are the same.
set -euo pipefail
name=$(basename "$0" .sh)
here=$(dirname "$(readlink -f "$0")")
# Some classes moved with Kafka 4.
admin=org.apache.kafka.tools console=org.apache.kafka.tools
for jar in "${KAFKA_LIBS:-/opt/kafka/libs}"/kafka-tools-3.*.jar; do
    [[ ! -e $jar ]] || admin=kafka.admin console=kafka.tools
done
case $name in
    kafka-acls) class=$admin.AclCommand ;;
    kafka-broker-api-versions) class=$admin.BrokerApiVersionsCommand ;;
    kafka-cluster) class=org.apache.kafka.tools.ClusterTool ;;
    kafka-configs) class=kafka.admin.ConfigCommand ;;
    kafka-console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    kafka-console-producer) class=$console.ConsoleProducer ;;
    kafka-consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    kafka-get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
    kafka-log-dirs) class=org.apache.kafka.tools.LogDirsCommand ;;
    kafka-metadata-quorum) class=org.apache.kafka.tools.MetadataQuorumCommand ;;
    kafka-storage) class=kafka.tools.StorageTool ;;
    kafka-topics) class=org.apache.kafka.tools.TopicCommand ;;
    *) echo "$name: this stand-in has no such tool" >&2; exit 127 ;;
esac
exec "$here/kafka-run-class.sh" "$class" "$@"
