"""Fitting models: what needs PyOD, river or torch, mostly in a process of its own."""
