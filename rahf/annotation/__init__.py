"""Human annotation of images."""
