"""The worker's own path over stored points: which alerts there would have been, and how good they are.

``replay`` steps ``evaluate`` and keeps episodes and bins; ``shards`` spreads the fleets over processes;
``csvfile`` and ``platform`` bring the points; ``labels`` and ``figures`` compare with what is known;
``plot`` and ``page`` draw the report; ``command`` is the command line.
"""
