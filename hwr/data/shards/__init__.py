"""Data sets that are larger than memory: written once as shards by ``hwr.pack``, streamed in training."""
