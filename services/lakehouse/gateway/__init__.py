"""HTTP :3100 over contracts; holds no state."""
