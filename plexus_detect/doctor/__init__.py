"""The command doctor: is everything there that the worker needs, and does it do what its owner means?"""
