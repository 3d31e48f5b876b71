"""An evaluation for eyes: files, TensorBoard, panels and a page of HTML."""
