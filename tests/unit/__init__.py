"""One part of the package a folder, as the package has them."""
