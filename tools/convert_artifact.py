"""Bring the entries of model_cards/ to the current format, the same weights and results: files, cards and hashes.

python tools/convert_artifact.py [NAME ...]
"""

import argparse
from dataclasses import replace

import dendrite_zoo.models  # noqa: F401  (which registers its classes)
from dendrite_zoo._core.files import write_json
from dendrite_zoo.hub import HubModel, artifact, build, full_config, registry
from dendrite_zoo.hub import config as configs
from dendrite_zoo.hub.publish.card import write_card


def convert(entry: registry.Entry) -> registry.Entry:
    """Write an entry's files anew; of one whose weights are not here only the config, and no hash of weights."""
    if entry.bundled:
        model = HubModel.from_pretrained(entry.folder)
        model.save_pretrained(entry.folder)
        write_card(model, entry.folder, entry.name)
    else:
        config = entry.folder / artifact.CONFIG
        write_json(config, full_config(build(configs.read(config))))
    entry = replace(entry, revision=None, files=registry.pins(entry.folder))
    registry.record(entry)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="entries to convert (default: all)")
    for name in parser.parse_args().name or registry.entries():
        entry = convert(registry.entry(name))
        print(f"{name}: {entry.size / 1e6:.1f} MB. {entry.not_built}")


if __name__ == "__main__":
    main()
