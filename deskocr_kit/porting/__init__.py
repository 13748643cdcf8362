"""Port a model that is not ours: move it, call it with its inputs, compare the text that it generates."""
