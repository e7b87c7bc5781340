"""Skills for other controllers."""
