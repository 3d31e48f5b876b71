"""RichHF-18K: label files, images, and mirrors that contain both."""
