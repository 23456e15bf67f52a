"""Every state that a power loss may leave, and what becomes of it."""
