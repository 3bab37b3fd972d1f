"""The machine learning of Recstill and its storage. Imports neither Prefect nor DVC."""
