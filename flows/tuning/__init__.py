"""The search for a recipe that meets a budget: its study, its trials, its report, and the patch of params.yaml."""
