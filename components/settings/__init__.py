"""params.yaml, typed: one frozen model a section."""
