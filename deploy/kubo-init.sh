#!/bin/sh
# Makes a new repository for a private Kubo that keeps pins; docs/pinning.md says what each setting is for.
#   IPFS_PATH=/srv/ipfs sh deploy/kubo-init.sh && IPFS_PATH=/srv/ipfs ipfs daemon --offline
# Optional: KUBO_API and KUBO_GATEWAY (multiaddresses), KUBO_ROOM (how much it may keep).
set -eu
: "${IPFS_PATH:?the folder of the new repository}"

ipfs init --empty-repo --profile server,pebbleds >/dev/null # fails where there is one already

# Blocks, and what Kubo knows of files: synced. Pins on their own: see "Kubo" in docs/pinning.md.
ipfs config --json Datastore.Spec '{"type":"mount","mounts":[
  {"mountpoint":"/pins","type":"pebbleds","path":"pins","disableWAL":true,"memTableSize":262144,"memTableStopWritesThreshold":8},
  {"mountpoint":"/","type":"pebbleds","path":"pebbleds","memTableSize":33554432}]}'
rm -r "$IPFS_PATH/pebbleds" # empty as yet
printf %s '{"mounts":[{"mountpoint":"/pins","path":"pins","type":"pebbleds"},{"mountpoint":"/","path":"pebbleds","type":"pebbleds"}],"type":"mount"}' \
  >"$IPFS_PATH/datastore_spec"

set_to() { ipfs config --json "$1" "$2"; }
set_to Addresses.API "\"${KUBO_API:-/ip4/127.0.0.1/tcp/5001}\""
set_to Addresses.Gateway "\"${KUBO_GATEWAY:-/ip4/127.0.0.1/tcp/8082}\""
set_to Addresses.Swarm '[]'
set_to Bootstrap '[]'
set_to Routing.Type '"none"'
set_to AutoConf.Enabled false
set_to AutoTLS.Enabled false
set_to Provide.Enabled false
set_to Gateway.NoFetch true
set_to Datastore.HashOnRead true
set_to Datastore.StorageMax "\"${KUBO_ROOM:-200GB}\""
