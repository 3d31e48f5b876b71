"""Human preferences between pairs of images."""
