"""The claims ledger: claims about porting to an NPU, each tested by code."""
