#!/usr/bin/env bash
# Starts Mongo Express with its secrets: the image reads the address and the session secret from
# variables only, and where a log-in file is missing it would let everybody in as admin:pass.
set -euo pipefail
for name in web_user web_password mongo_url session_secret; do
  test -s "/run/secrets/$name" || { echo "mongo-express: /run/secrets/$name is missing or empty" >&2; exit 1; }
done
ME_CONFIG_MONGODB_URL=$(< /run/secrets/mongo_url)
ME_CONFIG_SITE_SESSIONSECRET=$(< /run/secrets/session_secret)
ME_CONFIG_SITE_COOKIESECRET=$ME_CONFIG_SITE_SESSIONSECRET
export ME_CONFIG_MONGODB_URL ME_CONFIG_SITE_SESSIONSECRET ME_CONFIG_SITE_COOKIESECRET
exec /docker-entrypoint.sh mongo-express
