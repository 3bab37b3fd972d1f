"""The teacher's distribution at every training point, computed once and kept in the object store."""
