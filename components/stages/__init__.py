"""One short module a stage of dvc.yaml: read inputs, call the parts, write outputs."""
