"""Faults: kernels that are killed, stop buttons at the worst moment, disks that are full."""
