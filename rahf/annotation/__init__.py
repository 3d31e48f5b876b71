"""Human annotation of images through external services."""
