"""Orchestration: Prefect over the stage graph of dvc.yaml. Imports no torch."""
