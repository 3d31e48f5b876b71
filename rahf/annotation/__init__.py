"""Human annotation of images: in the browser, or through external services."""
