"""One model in several processes, each with its own card: see docs/parallel.md.

launch.py     starts the processes (no torch)
group.py      what the processes say to each other
split.py      how the weights are divided among ranks, and what each rank holds, reads and sends
tensor.py     tensor parallel: every rank has a part of every layer
pipeline.py   pipeline parallel: two stages with the first and the last layers, several pages in flight
"""
