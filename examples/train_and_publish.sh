#!/usr/bin/env bash
# Way (b): train by a recipe, then publish the run. --dry-run shows what would be sent; leave it out to send it.
set -e
recipe=${1:-dendrite_zoo/configs/permuted-digits.yaml} repo=${2:-you/permuted-digits}
shift $(($# < 2 ? $# : 2))
dendrite-zoo fit --config "$recipe" --name my-run "$@"
dendrite-zoo publish runs/my-run --repo "$repo" --dry-run
