"""The receipt of one score: which check gave it, from which numbers, and what happened to it on the way.

``account`` replays the past up to the point and takes its score apart; ``words`` writes that as text and as
JSON; ``command`` is the command line.
"""
