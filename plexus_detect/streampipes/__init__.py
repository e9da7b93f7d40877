"""Apache StreamPipes: models from its data lake, and a function that judges the events of its streams."""
