"""The report page: one HTML file in which the samples of an evaluation are browsed."""
