"""Messages of a bus to alerts and scores, a partition at a time: pure, the bus itself is not known here."""
