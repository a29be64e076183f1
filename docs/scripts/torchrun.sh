#!/usr/bin/env bash
# Start this on every machine: MAIN=10.0.0.1 HERE=10.0.0.2 docs/scripts/torchrun.sh --config quick --name big
#
#   MAIN     address of the first machine; it keeps the list of who is there, and has to stay
#   HERE     address of this machine, as the others see it
#   NODES    machines, or from:to: the run goes on with fewer when one is lost, and with more when one is back
#   DEVICES  processes on this machine, one for each GPU
set -euo pipefail
host=$([ "${HERE:?}" = "${MAIN:?}" ] && echo true || echo false)
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "${NODES:-1:2}" --nproc_per_node "${DEVICES:-1}" --max_restarts "${RESTARTS:-10}" \
  --rdzv_backend c10d --rdzv_endpoint "$MAIN:${PORT:-29400}" --rdzv_id "${JOB:-vgg}" --local_addr "$HERE" \
  --rdzv_conf "is_host=$host,last_call_timeout=${LAST_CALL:-30}" \
  -m vgg_lightning fit --resume auto "$@"
