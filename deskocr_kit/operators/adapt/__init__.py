"""Run any model with the substitutes of this kit: `adapt` patches a module, and can undo it."""
