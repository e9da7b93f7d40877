"""Any source with any sink: readings from a bus, results to it or to the platform. IO; extra ``kafka``."""
