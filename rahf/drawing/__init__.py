"""Arrays and text to pictures, HTML and Markdown; knows nothing of the model."""
