#!/bin/bash
# Start Mongo Express once its database accepts connections; any other command runs as it is.
set -euo pipefail
[[ ${1:-} == mongo-express ]] || exec "$@"

# Of mongodb://user:password@host:port/path?options only host and port; a list is not waited for.
server=${ME_CONFIG_MONGODB_SERVER:-}
if [[ -z $server ]]; then
    server=${ME_CONFIG_MONGODB_URL#*://}
    server=${server%%[/?]*}
    server=${server##*@}
else
    server+=:${ME_CONFIG_MONGODB_PORT:-27017}
fi
[[ $server == *:* ]] || server+=:27017
if [[ $server != *,* ]]; then
    for ((left = ${ME_CONFIG_CONNECT_RETRIES:-10}; left > 0; left--)); do
        if (: <>"/dev/tcp/${server%:*}/${server##*:}") 2>/dev/null; then break; fi
        echo "mongo-express: $server does not answer yet"
        sleep 1
    done
fi
exec node app
