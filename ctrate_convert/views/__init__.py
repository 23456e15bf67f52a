"""Views: what training code makes of a volume, as a named recipe, and the kernel that makes it."""
