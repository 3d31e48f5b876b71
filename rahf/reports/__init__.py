"""Reports of evaluations: files, TensorBoard, review panels and an HTML page."""
