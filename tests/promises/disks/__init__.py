"""Small, full and slow disks."""
