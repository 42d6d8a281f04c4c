"""What every other part of the engine rests on: seeds, objectives, fingerprints, memory, interrupts."""
