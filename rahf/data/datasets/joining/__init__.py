"""Labels, images and prompts joined by uid, and written as a data set."""
