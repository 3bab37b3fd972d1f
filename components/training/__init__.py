"""Lightning modules and losses: supervised and distillation."""
