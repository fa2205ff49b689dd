"""What one agent decides: its robust MPC, its feedback, its fallback controllers."""
