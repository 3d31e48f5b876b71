"""RichHF-18K: release files, their images, and copies that hold both."""
