"""One study from configuration to verified front: wires the rooms together."""
