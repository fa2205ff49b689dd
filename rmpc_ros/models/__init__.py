"""What the plant does: linear and nonlinear models, residuals learned from data, state estimation."""
