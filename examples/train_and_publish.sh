#!/usr/bin/env bash
# Way (b): train by a recipe, then publish the run. --dry-run shows the card and the files; leave it out to send them.
set -e
recipe=${1:-permuted-digits} repo=${2:-you/permuted-digits}
shift $(($# < 2 ? $# : 2))
dendrite-zoo fit --config "$recipe" --name my-run "$@"
dendrite-zoo publish runs/my-run --repo "$repo" --dry-run
