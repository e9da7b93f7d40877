"""Commands that look at a state file, copy it and move it away."""
