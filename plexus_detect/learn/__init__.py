"""Learned detectors: several metrics of a source that move together, scored by a model of their past.

Pure and NumPy only: a model is fitted elsewhere (``plexus_detect.training``, which needs the extra ``learn``)
and arrives here as named arrays, so that what scores needs neither PyOD nor torch.
"""
