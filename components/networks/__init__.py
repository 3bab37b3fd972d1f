"""Plain nn.Modules, each rebuilt from its architecture record."""
