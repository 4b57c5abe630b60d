"""Faces in photos: find them, cut them out aligned, put the restored ones back."""
